"""The SQLite store in a process: who holds the file, os.fork, kinds that a file can only describe."""

import gc
import os
import threading
import warnings

import attrs
import pytest
from sqlite_tools import opened

from dspex import (
    Boolean,
    Program,
    Session,
    StoreUnavailable,
    Struct,
    defvariable,
    open_store,
)
from dspex.stores.sqlite import SqliteStore

# ---- one process, one file ---------------------------------------------------------------------------


def test_handles_on_one_file_share_it(url):
    with opened(url) as first, opened(url) as second, SqliteStore(url) as store:
        assert first.ledger is second.ledger
        first.set("a", 1)
        assert (second.get("a"), [one.id for one in store.sessions()]) == (1, ["prod"])


def test_one_file_is_not_open_in_two_ways(path, url):
    with opened(url), pytest.raises(StoreUnavailable, match=r"durability=fast.*durability=full"):
        opened(f"sqlite:///{path}?durability=full")
    opened(f"sqlite:///{path}?durability=full").close()


def is_locked(path):
    import fcntl

    descriptor = os.open(f"{path}.lock", os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def test_the_last_session_lets_go_of_the_file(path, url):
    first, second = opened(url), opened(url)
    first.watch("a", print)
    first.close()
    assert is_locked(path)
    second.close()
    assert not is_locked(path)
    assert not (path.parent / "agent.db-wal").exists()


def test_a_store_keeps_the_file_until_it_is_closed(path, url):
    with SqliteStore(url) as store:
        Session("one", store=store).close()
        assert is_locked(path)
    assert not is_locked(path)
    with pytest.raises(StoreUnavailable, match="was closed"):
        store.open("one")


def test_a_session_keeps_the_file_when_its_store_is_closed(path, url):
    store = SqliteStore(url)
    with opened(store) as session:
        store.close()
        session.set("a", 1)
        assert is_locked(path)
    assert not is_locked(path)


def test_a_store_that_is_dropped_lets_go_of_the_file(path, url):
    assert open_store(url).sessions() == []
    gc.collect()
    assert not is_locked(path)


def test_a_session_that_is_dropped_is_a_leak(path, url):
    def leak():
        opened(url).watch("a", print)
        gc.collect()

    with pytest.warns(ResourceWarning, match=r"session 'prod' in .* was not closed"):
        leak()
    assert not is_locked(path)


def test_a_session_that_is_closed_is_no_leak(url):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session = opened(url)
        session.close()
        del session
        gc.collect()


def test_a_session_without_an_id_is_kept_too(url):
    with Session(store=url) as session:
        session_id = session.id
    with SqliteStore(url) as store:
        assert [session_id] == [one.id for one in store.sessions()]


def test_an_async_set_does_not_block_the_loop(url, spy, eventually):
    import asyncio

    async def main():
        with opened(url) as session:
            commit, ticks = threading.Event(), []
            spy.before = lambda statement: statement == "COMMIT" and commit.wait(30)
            task = asyncio.create_task(session.aset("a", 1))
            for _ in range(5):
                await asyncio.sleep(0)
                ticks.append(1)
            commit.set()
            await task
            return ticks, session.get("a")

    assert asyncio.run(main()) == ([1] * 5, 1)


# ---- os.fork -----------------------------------------------------------------------------------------


def test_a_child_cannot_use_the_store_and_the_parent_is_undisturbed(script, path, url):
    said = script(
        """
import os, sys, warnings
from dspex import Integer, Session, StoreUnavailable, open_store

url = sys.argv[1]
session = Session("prod", store=url)
session.register("a", Integer(), initial=0)
session.set("a", 1)
store = session.ledger.store
fork = session.fork()
parent = os.getpid()
read, write = os.pipe()
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    child = os.fork()
if child == 0:
    said = []
    for call in (
        lambda: session.get("a"), lambda: session.set("a", 2), lambda: session.history(), session.snapshot,
        lambda: store.open("x"), store.sessions, lambda: open_store(url),
    ):
        try:
            call()
        except StoreUnavailable as error:
            said.append(str(parent) in str(error))
    fork.set("a", 5)
    session.close()
    os.write(write, repr((said, fork.get("a"))).encode())
    sys.exit(0)
os.waitpid(child, 0)
print(os.read(read, 1000).decode())
session.set("a", 3)
print(session.get("a"))
session.close()
with Session("prod", store=url) as session:
    print(session.get("a"), session.record("a").version)
""",
        url,
    )
    assert said.splitlines() == ["([True, True, True, True, True, True, True], 5)", "3", "3 2"]


# ---- kinds that a file can only describe -------------------------------------------------------------


@attrs.frozen
class Settings:
    rate: float
    words: tuple[str, ...] = ()


class Agent(Program):
    settings = defvariable(Struct(Settings), initial=Settings(1.0))
    bold = defvariable(Boolean(), initial=False)


def test_a_class_of_the_user_comes_back_when_it_is_declared(url):
    with Session("prod", store=url) as session:
        program = Agent.bind(session)
        program.settings = Settings(0.5, ("x",))
        session.tag("good")
        session.set("settings", Settings(0.25))
        revision = session.revision
    with Session("prod", store=url) as session:
        assert dict(session.get("settings")) == {"rate": 0.25, "words": ()}
        program = Agent.bind(session)
        assert (Settings(0.25), revision) == (program.settings, session.revision)
        assert Settings(0.5, ("x",)) == session.snapshot("good")["settings"]
        assert [(Settings(1.0), Settings(0.5, ("x",))), (Settings(0.5, ("x",)), Settings(0.25))] == [
            (change.old, change.new) for change in session.history("settings")
        ]
        session.set("settings", Settings(2.0))
        assert Settings(2.0) == program.settings

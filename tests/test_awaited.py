"""What is awaited never waits for its store on the event loop."""

import asyncio
import contextvars
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parent / "faults"))

from awaited import VERBS, Agent, Streaming, Watched

from dspex import Integer, Program, Session, deadlines, placing, telemetry
from dspex.claims import active_token
from dspex.stores import MemoryStore
from dspex.stores.ledger import MemoryLedger

said = contextvars.ContextVar("said")


class Waiting(MemoryStore):
    """A store in memory that waits as one on a disk does, for as long as it is told to."""

    def __init__(self, asked):
        super().__init__()
        self.asked = asked
        self.restoring, self.go_on = threading.Event(), threading.Event()

    def open(self, session_id, *, create=True):
        self.asked()
        ledger = super().open(session_id, create=create)
        ledger.__class__ = WaitingLedger
        return ledger

    def restore(self, session_id, export):
        hold = super().restore(session_id, export)
        hold.ledger.__class__ = WaitingLedger
        self.restoring.set()
        assert self.go_on.wait(10)
        return hold

    def delete(self, session_id):
        self.asked()
        super().delete(session_id)


class WaitingLedger(MemoryLedger):
    __slots__ = ()

    blocking = True

    def commit(self, commit):
        self.store.asked()
        return super().commit(commit)

    def put(self, *arguments):
        self.store.asked()
        return super().put(*arguments)

    def snapshot(self, tag=None):
        self.store.asked()
        return super().snapshot(tag)

    def history(self, name=None, since=None):
        self.store.asked()
        return super().history(name, since)

    @property
    def tags(self):
        self.store.asked()
        return super().tags

    def export(self):
        self.store.asked()
        return super().export()

    def close(self):
        self.store.asked()
        super().close()


@pytest.fixture
def watched():
    return Watched()


@pytest.fixture
def store(watched):
    return Waiting(watched.asked)


@pytest.mark.parametrize("verb", VERBS)
def test_the_loop_goes_on_while_a_store_is_asked(session, watched, verb):
    assert (True, 0) == watched.run(VERBS[verb], session)


def test_what_binds_a_program_for_the_loop_knows_whose_call_it_is(session):
    class Asking(Program):
        def init(self):
            self.known = deadlines.remaining(), said.get(), threading.get_ident()

        async def aforward(self):
            return self.known

    async def main():
        said.set("hello")
        with deadlines.within(60):
            return await Asking.arun(session=session), threading.get_ident()

    (left, word, thread), loop = asyncio.run(main())
    assert (59 < left <= 60, word, thread != loop) == (True, "hello", True)


def test_a_claim_that_is_left_is_no_longer_had_while_it_is_released(session, watched):
    async def main():
        async with await session.aclaim(["n"], owner="tuner", ttl=30) as claim:
            assert active_token(session) == claim.request.token
        assert active_token(session) is None
        await session.aset("n", 1)

    asyncio.run(main())


def test_what_the_block_of_a_claim_raises_is_what_is_heard_of(session, store):
    async def main():
        async with await session.aclaim(["n"], owner="tuner", ttl=30):
            store.delete(session.id)  # so that nothing can be released
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())


def test_a_span_of_a_run_is_begun_off_the_loop(session, watched):
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.trace import TracerProvider

    Agent.run(session=session)
    Streaming.bind(session)
    telemetry.enable(TracerProvider())
    try:
        assert (True, 0) == watched.run(VERBS["arun"], session)
        assert (True, 0) == watched.run(VERBS["astream"], session)
    finally:
        telemetry.disable()


def test_a_stream_begins_with_its_first_piece(session):
    async def main():
        pieces = Streaming.astream(session=session, pin=True)
        await session.aset("n", 1)
        first = await anext(pieces)
        await pieces.aclose()
        return first

    assert asyncio.run(main()) == 1


def test_a_stream_of_changes_that_was_cancelled_before_it_began_begins_later(session, watched):
    began = session.revision
    session.set("n", 1)

    async def main():
        async with session.achanges("n", mode="all", since=began) as changes:
            watched.threads.clear()
            watched.go.clear()
            first = asyncio.create_task(anext(changes))
            while not watched.threads:  # noqa: ASYNC110  a thread sets it
                await asyncio.sleep(0)
            first.cancel()
            watched.go.set()
            session.set("n", 2)
            return [change.new for change in await asyncio.gather(anext(changes), anext(changes))]

    assert asyncio.run(main()) == [1, 2]


# ---- sessions in memory: at once, unless somebody is in the way ----------------------------------------


@pytest.fixture
def memory():
    with Session("here", store=MemoryStore()) as session:
        for name in ("n", "a"):
            session.register(name, Integer(), initial=0)
        yield session


@pytest.fixture
def no_thread(monkeypatch):
    async def refused(*_, **__):
        raise AssertionError("nobody has to wait")

    monkeypatch.setattr(asyncio, "to_thread", refused)


@pytest.mark.parametrize("verb", VERBS.keys() - {"amove_to", "aopen"})
def test_what_is_in_memory_is_done_at_once(memory, no_thread, verb):
    asyncio.run(VERBS[verb](memory))


def test_a_run_of_a_bound_program_needs_no_thread(session, request):
    """Threads that all wait for a store must not be in its way."""
    Agent.run(session=session)
    request.getfixturevalue("no_thread")
    assert [0, 0] == [asyncio.run(Agent.arun(session=one)) for one in (session, None)]


@pytest.mark.parametrize("verb", ["aset", "aupdate", "aswap", "atag", "aclaim", "arun", "batch"])
def test_who_awaits_a_session_on_its_way_elsewhere_does_not_stop_the_loop(memory, monkeypatch, verb):
    loop, sleep = threading.get_ident(), time.sleep

    def patient(seconds):
        assert threading.get_ident() != loop
        sleep(seconds)

    monkeypatch.setattr(placing, "time", SimpleNamespace(sleep=patient))

    async def main():
        hold = memory.ledger.hold()
        awaited = asyncio.ensure_future(VERBS[verb](memory))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not awaited.done()
        hold.release()
        await awaited

    asyncio.run(main())


def test_who_is_overtaken_by_a_move_asks_the_new_store_in_a_thread(memory, session, watched):
    source = memory.ledger

    def overtaken():
        if memory.ledger is source:
            memory._place(source, session.ledger)  # by another thread, in this moment
        memory.tag("here")

    assert (True, 0) == watched.run(lambda _: memory._call(overtaken), session)


def test_who_sets_a_session_that_moves_to_a_store_that_waits_asks_it_in_a_thread(memory, store, watched):
    async def moved(session):
        moving = asyncio.create_task(session.amove_to(store))
        assert await asyncio.to_thread(store.restoring.wait, 10)
        setting = asyncio.create_task(session.aset("n", 1))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not setting.done()
        store.go_on.set()
        await asyncio.gather(moving, setting)
        await session.aset("n", 2, expect=1)

    assert (True, 0) == watched.run(moved, memory)


def test_a_callback_that_sets_a_session_on_its_way_elsewhere_waits_where_it_is(memory, monkeypatch):
    """The commit that it is told of was made: to begin that again in a thread would make it twice."""

    def hear(_):
        hold = memory.ledger.hold()
        monkeypatch.setattr(placing, "time", SimpleNamespace(sleep=lambda _: hold.release()))
        memory.set("a", 1)

    watch = memory.watch("n", hear)
    asyncio.run(memory.aset("n", 1))
    assert (0, 1, 1) == (watch.errors, memory.record("n").version, memory.get("a"))


def test_a_verb_that_is_not_awaited_waits_where_it_is(memory, monkeypatch):
    async def main():
        await memory.aset("n", 1)
        hold = memory.ledger.hold()
        monkeypatch.setattr(placing, "time", SimpleNamespace(sleep=lambda _: hold.release()))
        memory.set("n", 2)

    asyncio.run(main())
    assert memory.get("n") == 2


def test_a_loop_does_not_wait_for_a_program_that_a_thread_binds(memory, together):
    began, go = threading.Event(), threading.Event()

    class Slow(Agent):
        def init(self):
            began.set()
            assert go.wait(10)

    async def main():
        assert await asyncio.to_thread(began.wait, 10)
        run = asyncio.create_task(Agent.arun(session=memory))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not run.done()
        go.set()
        return await run

    assert [0, 0] == together(lambda: asyncio.run(Slow.arun(session=memory)), lambda: asyncio.run(main()))

"""The async twins, and programs that are awaited."""

import asyncio
import contextvars
import threading

import pytest

from dspex import (
    DeadlineExceeded,
    Integer,
    Program,
    Session,
    Snapshot,
    VersionConflict,
    WouldBlock,
    changes,
    defvariable,
    dispatch,
)


class Both(Program):
    v = defvariable(Integer(), initial=1)

    def forward(self):
        return "forward", self.v

    async def aforward(self):
        return "aforward", self.v


class OnlyAsync(Program):
    v = defvariable(Integer(), initial=1)

    async def aforward(self):
        await asyncio.sleep(0)
        return self.v, threading.get_ident(), asyncio.get_running_loop()


class OnlySync(Program):
    v = defvariable(Integer(), initial=1)

    def forward(self):
        return self.v, threading.get_ident()


class AsyncForward(Program):
    v = defvariable(Integer(), initial=1)

    async def forward(self):
        await asyncio.sleep(0)
        return self.v


def test_each_verb_has_a_twin_that_does_the_same(session):
    async def main():
        assert (await session.aset("n", 1, {"why": "x"}, source="me", expect=0)).new == 1
        assert len((await session.aupdate({"a": 1, "b": 2})).changes) == 2
        assert (await session.aswap("n", lambda n: n + 1)).new == 2
        assert (await session.asnapshot())["n"] == 2
        assert [change.new for change in await session.ahistory("n")] == [1, 2]
        await session.atag("here")
        await session.arollback("n", 1)
        assert session.get("n") == 1
        await session.arollback(to="here")
        assert session.get("n") == 2
        with await session.aclaim(["n"], owner="tuner", ttl=30) as claim:
            claim.set("n", 3)
        async with session.fork({"a": 9}) as fork:
            await fork.acommit_to_parent(["a"])
        assert (session.get("a"), session.get("n")) == (9, 3)
        with pytest.raises(VersionConflict):
            await session.aset("n", 1, expect=0)
        await session.adelete()
        await session.aclose()
        return session.closed

    assert asyncio.run(main())


def test_a_batch_may_be_awaited(session):
    async def main():
        async with session.batch() as batch:
            await session.aset("a", 1)
            await session.aset("b", 2)
            assert (session.get("a"), session.get("b")) == (0, 0)
        return batch.receipt

    assert {change.name: change.new for change in asyncio.run(main()).changes} == {"a": 1, "b": 2}


# ---- awaited programs --------------------------------------------------------------------------------


def test_run_prefers_forward_and_arun_aforward(session):
    assert Both.run(session=session) == ("forward", 1)
    assert asyncio.run(Both.arun(session=session)) == ("aforward", 1)
    assert asyncio.run(Both.bind(session).acall()) == ("aforward", 1)
    assert asyncio.run(Both.arecord(session=session)).output == ("aforward", 1)


def test_run_awaits_aforward_where_there_is_only_that(session):
    assert OnlyAsync.run(session=session)[0] == 1
    assert AsyncForward.run(session=session) == 1
    assert asyncio.run(AsyncForward.arun(session=session)) == 1


@pytest.mark.parametrize("how", ["run", "record", "call", "timeout"])
def test_a_program_that_is_only_async_is_not_called_inside_a_running_loop(session, how):
    """It would stop the loop until it has an answer, and wait for ever for what needs the loop."""
    program = OnlyAsync.bind(session)
    ways = {
        "run": lambda: OnlyAsync.run(session=session),
        "record": program.record,
        "call": program,
        "timeout": lambda: program.run(timeout=30),
    }

    async def main():
        with pytest.raises(WouldBlock) as refused:
            ways[how]()
        assert (await OnlyAsync.arun(session=session))[0] == 1
        return str(refused.value)

    assert asyncio.run(main()) == (
        "OnlyAsync has only aforward, and to wait for it here would stop the event loop of this thread. "
        "Await it: await OnlyAsync.arun(…), or acall(…) on a bound program."
    )
    assert ways[how]() is not None


def test_arun_awaits_aforward_on_the_callers_loop(session):
    async def main():
        n, thread, loop = await OnlyAsync.arun(session=session)
        return n, thread == threading.get_ident(), loop is asyncio.get_running_loop()

    assert asyncio.run(main()) == (1, True, True)


def test_arun_calls_forward_in_a_thread_and_blocks_nobody(session):
    started, go = threading.Event(), threading.Event()

    class Slow(Program):
        v = defvariable(Integer(), initial=1)

        def forward(self):
            started.set()
            assert go.wait(30)
            return self.v, threading.get_ident()

    async def main():
        run = asyncio.create_task(Slow.arun(session=session))
        while not started.is_set():  # noqa: ASYNC110  a thread sets it
            await asyncio.sleep(0)
        go.set()
        n, thread = await run
        return n, thread != threading.get_ident()

    assert asyncio.run(main()) == (1, True)


def test_arun_may_be_pinned(session):
    class Setting(Program):
        x = defvariable(Integer(), initial=0)

        async def aforward(self):
            await self.session.aset("x", 5)
            return self.x

    assert (
        asyncio.run(Setting.arun(session=session, pin=True)),
        asyncio.run(Setting.arun(session=session)),
    ) == (0, 5)


def test_arun_without_a_session_has_a_private_one():
    assert (asyncio.run(OnlySync.arun())[0], asyncio.run(OnlyAsync.arun())[0]) == (1, 1)


def test_arun_that_takes_too_long_is_cancelled():
    cancelled = []

    class Slow(Program):
        async def aforward(self):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                raise

    with Session("late", store="memory://late") as session:
        with pytest.raises(DeadlineExceeded) as late:
            asyncio.run(Slow.arun(session=session, timeout=0.02))
        assert (cancelled, late.value.seconds, late.value.session) == ([True], 0.02, "late")
        assert str(late.value) == "Slow on session 'late' took longer than 0.02 s. It was cancelled."


def test_a_timeout_of_aforward_itself_is_its_own(session):
    class Failing(Program):
        async def aforward(self):
            raise TimeoutError("of aforward")

    with pytest.raises(TimeoutError, match="of aforward") as raised:
        asyncio.run(Failing.arun(session=session, timeout=30))
    assert not isinstance(raised.value, DeadlineExceeded)


def test_many_runs_on_one_loop_stay_apart():
    class Noting(Program):
        x = defvariable(Integer(), initial=0)

        async def aforward(self, x):
            self.x = x
            await asyncio.sleep(0)
            return self.x

    async def trial(session, number):
        with session.fork() as fork:
            return await Noting.arun(number, session=fork)

    async def main():
        with Session() as session:
            Noting.bind(session)
            return await asyncio.gather(*(trial(session, number) for number in range(100))), session.get("x")

    assert (list(range(100)), 0) == asyncio.run(main())


# ---- awaited callbacks -------------------------------------------------------------------------------


def test_an_async_callback_is_awaited_on_the_loop_of_its_watch(session, together):
    async def main():
        seen, done = [], asyncio.Event()

        async def on_change(change):
            await asyncio.sleep(0)
            seen.append((change.new, threading.get_ident()))
            if change.new == 99:
                done.set()

        session.watch("n", on_change, mode="all")

        def write():
            for value in range(100):
                session.set("n", value)

        await asyncio.to_thread(write)
        await asyncio.wait_for(done.wait(), 30)
        return seen, threading.get_ident()

    seen, thread = asyncio.run(main())
    assert [(value, thread) for value in range(100)] == seen


def test_an_async_callback_that_is_slow_gets_the_newest_change(session):
    async def main():
        seen, go, done = [], asyncio.Event(), asyncio.Event()

        async def on_change(change):
            seen.append((change.name, change.new))
            await go.wait()
            if (change.name, change.new) == ("a", 9):
                done.set()

        session.watch("*", on_change)
        session.set("n", 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for value in range(1, 10):
            session.set("n", value)
            session.set("a", value)
        go.set()
        await asyncio.wait_for(done.wait(), 30)
        return seen

    assert asyncio.run(main()) == [("n", 0), ("n", 9), ("a", 9)]


def test_what_an_async_callback_raises_is_counted_and_logged(session, caplog):
    async def main():
        async def broken(_):
            raise RuntimeError("broken")

        watch = session.watch("n", broken, mode="all")
        session.set("n", 1)
        session.set("n", 2)
        while watch.errors < 2:  # noqa: ASYNC110  a thread sets it
            await asyncio.sleep(0)
        return str(watch.last_error)

    assert asyncio.run(main()) == "broken"
    assert len(caplog.records) == 2


def test_an_async_callback_may_be_debounced(session):
    async def main():
        seen, done = [], asyncio.Event()

        async def on_change(change):
            seen.append(change.new)
            done.set()

        session.watch("n", on_change, debounce=0.01)
        for value in range(10):
            session.set("n", value)
        await asyncio.wait_for(done.wait(), 10)
        return seen

    assert asyncio.run(main()) == [9]


def test_an_async_callback_far_behind_in_mode_all_is_closed(session, monkeypatch, caplog):
    for module in (changes, dispatch):
        monkeypatch.setattr(module, "LOSSLESS_QUEUE", 100, raising=False)

    async def main():
        async def stuck(_):
            await asyncio.Event().wait()

        watch = session.watch("n", stuck, mode="all")
        for value in range(1_000):
            session.set("n", value)
            await asyncio.sleep(0)
        return watch.closed

    assert asyncio.run(main())


# ---- achanges ----------------------------------------------------------------------------------------


def test_changes_can_be_read_with_async_for(session):
    async def main():
        seen = []
        stream = session.achanges("n", mode="all")

        def write():
            for value in range(100):
                session.set("n", value)
            stream.close()

        writer = asyncio.create_task(asyncio.to_thread(write))
        async for change in stream:
            seen.append(change.new)  # noqa: PERF401  the loop that a user writes
        await writer
        return seen

    assert list(range(100)) == asyncio.run(main())


def test_achanges_goes_on_from_a_revision(session):
    session.set("n", 1)
    revision = session.revision
    session.set("n", 2)

    async def main():
        async with session.achanges("n", mode="all", since=revision) as stream:
            session.set("n", 3)
            return [(await anext(stream)).new for _ in range(2)]

    assert asyncio.run(main()) == [2, 3]


def test_achanges_of_another_epoch_begins_with_a_snapshot(session):
    with Session() as other:
        revision = other.revision

    async def main():
        async with session.achanges("n", since=revision) as stream:
            return await asyncio.wait_for(anext(stream), 30)

    assert isinstance(asyncio.run(main()), Snapshot)


@pytest.mark.parametrize("end", ["stream", "session"])
def test_who_awaits_a_change_is_woken_by_the_end(session, end):
    async def main():
        stream = session.achanges("n")
        waiting = asyncio.create_task(anext(stream, "ended"))
        await asyncio.sleep(0)
        (stream if end == "stream" else session).close()
        return await asyncio.wait_for(waiting, 30)

    assert asyncio.run(main()) == "ended"


def test_a_session_is_used_from_several_loops(session, together):
    async def count():
        for _ in range(500):
            await session.aswap("n", lambda n: n + 1)
            await asyncio.sleep(0)

    together(*[lambda: asyncio.run(count())] * 4)
    assert session.get("n") == 2_000


def test_a_callback_that_is_cancelled_is_a_failure_and_the_next_change_is_told(session):
    async def main():
        told, done = [], asyncio.Event()

        async def hear(change):
            told.append(change.new)
            if change.new == 1:
                raise asyncio.CancelledError
            done.set()

        watch = session.watch("n", hear, mode="all")
        session.set("n", 1)
        session.set("n", 2)
        await asyncio.wait_for(done.wait(), 10)
        return told, watch.errors

    assert ([1, 2], 1) == asyncio.run(main())


def test_a_watch_whose_loop_is_closed_closes_itself(session):
    async def main():
        async def hear(_):
            pass

        return session.watch("n", hear)

    watch = asyncio.run(main())
    session.set("n", 1)
    assert watch.closed


def test_an_async_callback_does_not_run_in_the_batch_of_who_sets(session):
    async def main():
        done = asyncio.Event()

        async def hear(_):
            session.set("b", 5)
            done.set()

        session.watch("a", hear)
        with Session("other") as other:
            other.register("x", int, initial=0)
            with pytest.raises(ZeroDivisionError), session.batch():
                await asyncio.to_thread(contextvars.Context().run, session.set, "a", 1)
                await asyncio.wait_for(done.wait(), 10)
                raise ZeroDivisionError

    asyncio.run(main())
    assert (1, 5) == (session.get("a"), session.get("b"))

"""The contract of pools as tests: subclass it, and give it pools of yours."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from dspex import (
    DeadlineExceeded,
    InvalidValue,
    PoolClosed,
    PoolSaturated,
    Program,
    Session,
    UnknownTool,
    WorkerLost,
    tool,
)
from dspex.pool import BasePool
from dspex.testing import pool_programs as those
from dspex.testing.pool_calls import SOON, PoolCalls, eventually, lives

__all__ = ["PoolContract"]


def _ended(pid: int) -> bool:
    return not lives(pid)


class PoolContract(PoolCalls):
    """
    What every pool does.

    Override the fixture `make`, which gives a function of settings that makes a pool of the programs of
    `dspex.testing.pool_programs` and closes it at the end; and `one`, which may be shared by many tests.
    """

    # ---- time --------------------------------------------------------------------------------------

    def test_a_deadline_ends_a_run_and_tells_at_once(self, one: BasePool, tmp_path: Path) -> None:
        left = tmp_path / "left"
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"took longer than 0.2 s"):
            those.Slow.run(60, str(left), pool=one, timeout=0.2)
        assert time.monotonic() - start < 2.0
        if self.interrupts:
            eventually(left.exists, "the program was left")

    def test_what_is_no_time_is_refused(self, one: BasePool) -> None:
        for call in (those.Echo.run, those.Echo.stream):
            with pytest.raises(InvalidValue, match=r"^timeout must be 0 or more seconds \(got nan\)\.$"):
                call(pool=one, timeout=float("nan"))
        with pytest.raises(InvalidValue, match=r"^deadline must be at most \d+ seconds \(got inf\)\.$"):
            one.submit(those.Echo, deadline=float("inf"))

    def test_what_is_too_late_is_not_begun(self, make: Any, tmp_path: Path) -> None:
        pool = make(workers=1)
        busy = pool.submit(those.Slow, 0.5)
        late = pool.submit(those.Counting, str(tmp_path / "begun"), deadline=0.1)
        with pytest.raises(DeadlineExceeded, match="was not begun") as raised:
            late.result()
        assert raised.value.started is False  # type: ignore[attr-defined]
        assert busy.result() == "slept"
        assert those.Echo.run(pool=pool) == [[], {}]
        assert not (tmp_path / "begun").exists()

    def test_a_run_that_calls_another_pool_run_has_what_is_left(self, one: BasePool) -> None:
        from dspex import deadlines

        with deadlines.within(0.2), pytest.raises(DeadlineExceeded):
            those.Slow.run(60, pool=one)

    def test_a_budget_is_that_of_the_call_and_not_of_the_one_before(self, one: BasePool) -> None:
        for seconds in (50.0, 500.0, 5.0):
            assert seconds / 2 < one.submit(those.Left, deadline=seconds).result() <= seconds

    def test_a_call_that_waits_is_cancelled_at_once(self, make: Any, tmp_path: Path) -> None:
        pool = make(workers=1)
        busy = pool.submit(those.Slow, 0.3)
        waiting = pool.submit(those.Counting, str(tmp_path / "begun"))
        assert waiting.cancel()
        with pytest.raises(CancelledError):
            waiting.result()
        assert busy.result() == "slept"
        assert those.Echo.run(pool=pool) == [[], {}]
        assert not (tmp_path / "begun").exists()

    @pytest.mark.parametrize("program", [those.Slow, those.Awaiting])
    def test_a_call_that_runs_is_cancelled_soon(
        self, make: Any, tmp_path: Path, program: type[Program]
    ) -> None:
        if program is those.Slow and not self.interrupts:
            pytest.skip("this engine cannot interrupt what sleeps")
        pool = make(workers=1)
        before = those.Where.run(pool=pool)[0]
        call = pool.submit(program, (60, str(tmp_path / "left")))
        eventually(call.running, "it runs")
        time.sleep(0.05)
        assert call.cancel()
        assert not call.cancel()
        eventually((tmp_path / "left").exists, "the program was left")
        assert those.Where.run(pool=pool)[0] == before

    def test_a_worker_that_does_not_end_its_call_is_ended(self, make: Any) -> None:
        pool = make(workers=1, patience=0.1)
        before = those.Where.run(pool=pool)[0]
        call = pool.submit(those.Stuck, "deaf")
        eventually(call.running, "it runs")
        time.sleep(0.05)
        call.cancel()
        assert those.Where.run(pool=pool)[0] != before

    # ---- streams -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("program", [those.Pieces, those.AsyncPieces])
    def test_a_stream_gives_pieces_in_order(self, one: BasePool, program: type[Program]) -> None:
        assert list(program.stream(100, pool=one)) == list(range(100))

    def test_a_stream_is_awaited(self, one: BasePool) -> None:
        async def main() -> list[int]:
            return [piece async for piece in those.Pieces.astream(100, pool=one)]

        assert asyncio.run(main()) == list(range(100))

    def test_what_returns_is_a_stream_of_one_piece(self, one: BasePool) -> None:
        assert list(those.Echo.stream(1, pool=one)) == [[[1], {}]]

    def test_a_stream_that_fails_gives_its_pieces_first(self, one: BasePool) -> None:
        pieces = those.Pieces.stream(3, fail=True, pool=one)
        assert [next(pieces) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(ValueError, match="no more"):
            next(pieces)

    def test_a_stream_that_nobody_reads_waits(self, make: Any, tmp_path: Path) -> None:
        pool = make(workers=1, pieces=4)
        stream = pool.stream(those.Pieces, (10**9, str(tmp_path / "given")))
        assert next(stream) == 0
        threading.Event().wait(0.2)  # for what should not happen
        stream.close()
        eventually((tmp_path / "given").exists, "the program was left")
        assert int((tmp_path / "given").read_text()) <= 4 + 2

    def test_run_says_that_a_generator_is_for_stream(self, one: BasePool) -> None:
        with pytest.raises(InvalidValue, match=r"stream\(\) takes generators"):
            those.Pieces.run(3, pool=one)

    # ---- many --------------------------------------------------------------------------------------

    def test_map_keeps_order_and_the_error_of_each_item(self, one: BasePool) -> None:
        told: list[Any] = []
        items = [*range(5), object(), *range(5, 10)]
        outcomes = list(one.map(those.Echo, items, progress=lambda *done: told.append(done)))
        assert [one.inputs for one in outcomes] == items
        assert [one.output for one in outcomes if one.error is None] == [[[n], {}] for n in range(10)]
        assert isinstance(outcomes[5].error, InvalidValue)
        assert told == [(n, 11) for n in range(1, 12)]

    def test_map_takes_no_more_items_than_it_needs(self, one: BasePool) -> None:
        taken: list[int] = []

        def endless() -> Iterator[int]:
            while True:
                taken.append(1)
                yield len(taken)

        outcomes = one.map(those.Echo, endless(), in_flight=3)
        assert [next(outcomes).output for _ in range(5)] == [[[n], {}] for n in range(1, 6)]
        outcomes.close()  # type: ignore[attr-defined]
        assert len(taken) <= 8

    # ---- room --------------------------------------------------------------------------------------

    def test_a_full_queue_refuses_at_once(self, make: Any) -> None:
        pool = make(workers=1, queue=2)
        calls = [pool.submit(those.Slow, 0.3) for _ in range(3)]
        start = time.monotonic()
        with pytest.raises(PoolSaturated, match="2 calls wait, which is the limit"):
            pool.submit(those.Echo)
        assert time.monotonic() - start < 0.2
        assert [call.result() for call in calls] == ["slept"] * 3

    def test_a_cancelled_call_makes_room(self, make: Any) -> None:
        pool = make(workers=1, queue=1)
        busy, waiting = pool.submit(those.Slow, 0.3), pool.submit(those.Echo)
        waiting.cancel()
        assert pool.submit(those.Echo, 1).result() == [[1], {}]
        assert busy.result() == "slept"

    # ---- workers that are lost ---------------------------------------------------------------------

    @pytest.mark.parametrize("how", ["exit", "SIGKILL", "SIGSEGV"])
    def test_a_lost_worker_fails_its_call_and_no_other(self, make: Any, how: str, tmp_path: Path) -> None:
        pool = make(workers=2, affinity="none")
        lost = pool.submit(those.Dying, (how, str(tmp_path / "begun")))
        others = [pool.submit(those.Where, 0.01) for _ in range(20)]
        with pytest.raises(WorkerLost, match=r"while it ran .*:Dying\. It is not run again"):
            lost.result(SOON)
        assert len([call.result(SOON) for call in others]) == 20
        assert (tmp_path / "begun").read_text() == "begun\n"
        eventually(lambda: pool.stats().ready == 2, "the pool has its workers again")

    def test_an_idempotent_call_is_run_again(self, make: Any, tmp_path: Path) -> None:
        pool = make(workers=1)
        path = tmp_path / "begun"
        call = pool.submit(those.Counting, (str(path), 0.5), idempotent=True)
        eventually(path.exists, "it has begun")
        first = int(
            eventually(lambda: path.read_text().endswith("\n") and path.read_text(), "told").split()[-1]
        )
        os.kill(first, signal.SIGKILL)
        assert call.result(SOON) != first
        assert [line.split()[0] for line in path.read_text().splitlines()] == ["begin", "begin", "end"]

    def test_a_call_that_kills_every_worker_is_given_up(self, make: Any, tmp_path: Path) -> None:
        pool = make(workers=1, attempts=2)
        call = pool.submit(those.Dying, ("exit", str(tmp_path / "begun")), idempotent=True)
        with pytest.raises(WorkerLost, match="begun 2 times"):
            call.result(SOON)
        assert (tmp_path / "begun").read_text() == "begun\n" * 2

    def test_the_session_of_a_lost_worker_is_rebuilt(self, make: Any, session: Session) -> None:
        pool = make(workers=2)
        those.Knobs.bind(session)
        session.set("steps", 5)
        first = those.Where.run(session=session, pool=pool)[0]
        os.kill(first, signal.SIGKILL)
        eventually(lambda: pool.stats().tally.lost == 1 and pool.stats().ready == 2, "it was replaced")
        assert those.Where.run(session=session, pool=pool)[0] != first
        assert those.Knobs.run(session=session, pool=pool) == (0.7, 5)

    # ---- tools -------------------------------------------------------------------------------------

    def test_a_tool_runs_where_it_was_offered(self, one: BasePool, session: Session) -> None:
        @tool
        def here(add: int) -> int:
            return os.getpid() + add

        here.offer(session)
        assert os.getpid() + 1 == those.Asking.run("here", 1, session=session, pool=one)
        assert os.getpid() + 1 == those.Asking.run("here", 1, thread=True, session=session, pool=one)
        with session.fork() as fork:
            assert os.getpid() + 2 == those.Asking.run("here", 2, session=fork, pool=one)

    def test_the_types_of_a_tool_are_checked(self, one: BasePool, session: Session) -> None:
        @tool
        def half(number: int) -> int:
            return number / 2  # type: ignore[return-value]

        half.offer(session)
        with pytest.raises(InvalidValue, match=r"half\(number=…\) must be"):
            those.Asking.run("half", "two", session=session, pool=one)
        with pytest.raises(InvalidValue, match="what tool half returns must be a whole number"):
            those.Asking.run("half", 3, session=session, pool=one)

    def test_what_a_tool_raises_comes_to_the_program_and_back(self, one: BasePool, session: Session) -> None:
        @tool
        def failing() -> None:
            raise those.Quirky(4, hint="there")

        failing.offer(session)
        with pytest.raises(those.Quirky) as raised:
            those.Asking.run("failing", session=session, pool=one)
        assert raised.value.hint == "there"

    def test_a_tool_streams(self, one: BasePool, session: Session) -> None:
        closed: list[bool] = []

        @tool
        def lines(count: int) -> Iterator[str]:
            try:
                for number in range(count):
                    yield f"line {number}"
            finally:
                closed.append(True)

        lines.offer(session)
        assert those.Asking.run("lines", 3, stream=True, session=session, pool=one) == [
            "line 0",
            "line 1",
            "line 2",
        ]
        assert closed == [True]

    def test_an_unknown_tool_names_the_near_one(self, one: BasePool, session: Session) -> None:
        @tool
        def search(query: str) -> str:
            return query

        search.offer(session)
        with pytest.raises(UnknownTool, match="Did you mean 'search'"):
            those.Asking.run("serch", "x", session=session, pool=one)

    # ---- more and fewer workers --------------------------------------------------------------------

    def test_a_call_ends_whose_worker_goes_while_another_one_comes_in_its_place(self, make: Any) -> None:
        pool = make(workers=2, affinity="none")
        calls = [pool.submit(those.Where, 1.0) for _ in range(2)]
        eventually(lambda: all(call.running() for call in calls), "both run")
        pool.resize(1)
        pool.resize(2)
        pool.wait_ready(60)
        assert len({call.result(60)[0] for call in calls}) == 2
        eventually(lambda: len(pool.stats().workers) == 2, "one has left")
        assert (pool.stats().tally.started, pool.stats().tally.lost) == (3, 0)

    # ---- the end -----------------------------------------------------------------------------------

    def test_drain_loses_nothing(self, make: Any) -> None:
        pool = make(workers=2, affinity="none")
        calls = [pool.submit(those.Where, 0.02) for _ in range(20)]
        assert pool.drain()
        assert len([call.result(0) for call in calls]) == 20
        with pytest.raises(PoolClosed):
            pool.submit(those.Echo)

    def test_drain_ends_what_takes_too_long(self, make: Any) -> None:
        pool = make(workers=1)
        call = pool.submit(those.Slow, 60)
        assert not pool.drain(0.2)
        with pytest.raises(PoolClosed, match=r"before .*:Slow had ended"):
            call.result(0)

    def test_close_ends_all_and_may_be_called_again(self, make: Any) -> None:
        pool = make(workers=1)
        pids = [one.pid for one in pool.stats().workers]
        calls = [pool.submit(those.Slow, 60) for _ in range(3)]
        pool.close()
        pool.close()
        for call in calls:
            with pytest.raises(PoolClosed):
                call.result(0)
        for pid in pids:
            eventually(partial(_ended, pid), "its process has ended", 5.0)

    def test_stats_count(self, make: Any) -> None:
        pool = make(workers=1)
        those.Echo.run(pool=pool)
        with pytest.raises(ValueError, match="no such"):
            those.Failing.run("builtin", pool=pool)
        eventually(lambda: pool.stats().busy == 0, "it is idle")
        stats = pool.stats()
        assert (stats.ready, stats.busy, stats.queued) == (1, 0, 0)
        assert (stats.tally.done, stats.tally.failed, stats.tally.lost) == (1, 1, 0)
        assert stats.workers[0].resident > 0 or stats.workers[0].calls == 2

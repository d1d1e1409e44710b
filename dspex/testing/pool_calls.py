"""The contract of pools as tests: calls, the state that they see, and what they raise."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from dspex import (
    InvalidValue,
    Program,
    ProgramError,
    Session,
    UnknownProgram,
)
from dspex.pool import BasePool
from dspex.testing import pool_programs as those
from dspex.testing.pool_programs import Answer, Mood

__all__ = ["SOON", "PoolCalls", "eventually", "lives"]

SOON = 30.0


def eventually(condition: Callable[[], Any], what: str, seconds: float = SOON) -> Any:
    """What *condition* gives when that is true at last."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not (found := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        pause.wait(0.002)
    return found


def lives(pid: int) -> bool:
    """Whether there is such a process, and more of it than its status."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _ended(pid: int) -> bool:
    return not lives(pid)


class PoolCalls:
    """
    What every pool does.

    Override the fixture `make`, which gives a function of settings that makes a pool of the programs of
    `dspex.testing.pool_programs` and closes it at the end; and `one`, which may be shared by many tests.
    """

    interrupts = True
    """Whether the engine can interrupt a program that sleeps; else its worker is ended."""

    @pytest.fixture
    def make(self) -> Iterator[Callable[..., BasePool]]:
        """Make pools."""
        raise NotImplementedError

    @pytest.fixture
    def one(self, make: Callable[..., BasePool]) -> BasePool:
        """A pool of two workers, which the test leaves as it was."""
        return make(workers=2)

    @pytest.fixture
    def session(self) -> Iterator[Session]:
        with Session() as session:
            yield session

    # ---- calls -------------------------------------------------------------------------------------

    def test_a_program_runs_in_another_process(self, one: BasePool) -> None:
        assert those.Where.run(pool=one)[0] != os.getpid()

    def test_inputs_and_outputs_come_as_they_were(self, one: BasePool) -> None:
        values: list[Any] = [None, True, 2**62, -0.0, "ü\0", b"\xff", [1, [2]], (1, (2,)), {"a": {"b": ()}}]
        assert [values, {"named": 1}] == those.Echo.run(*values, named=1, pool=one)

    def test_arrays_come_with_their_dtype_and_shape(self, one: BasePool) -> None:
        np = pytest.importorskip("numpy")
        given = np.arange(6, dtype="float32").reshape(2, 3)
        (got, scalar), _ = those.Echo.run(given, np.float16(0.5), pool=one)
        assert (got.dtype, got.shape, got.tolist()) == (given.dtype, given.shape, given.tolist())
        assert (type(scalar), scalar) == (np.float16, 0.5)

    def test_instances_come_as_the_class_that_the_annotations_name(self, one: BasePool) -> None:
        given = Answer("yes", Mood.GOOD, (0.5, 1.0))
        assert those.Shaped.run(given, pool=one) == [given, Answer("YES", Mood.GOOD, (0.5, 1.0))]

    def test_inputs_are_by_name_by_position_or_the_only_one(self, one: BasePool) -> None:
        calls = [one.submit(those.Echo, inputs) for inputs in ({"a": 1}, (1, 2), 1, ())]
        assert [call.result() for call in calls] == [[[], {"a": 1}], [[1, 2], {}], [[1], {}], [[], {}]]

    def test_an_input_that_cannot_travel_is_named_before_anything_runs(self, one: BasePool) -> None:
        with pytest.raises(InvalidValue, match=r"inputs\[0\]\['b'\] must be plain data"):
            those.Echo.run({"b": object()}, pool=one)

    def test_an_output_that_cannot_travel_is_named(self, one: BasePool) -> None:
        with pytest.raises(InvalidValue, match=r"returned\['pages'\]\[1\]\['handle'\] must be .*got lock"):
            those.Odd.run(pool=one)

    def test_a_program_that_is_not_served_is_refused(self, one: BasePool) -> None:
        class Other(Program):
            def forward(self) -> None: ...

        with pytest.raises(UnknownProgram, match="cannot be imported by a worker"):
            Other.run(pool=one)
        with pytest.raises(UnknownProgram, match=r"does not serve .*:Broken"):
            those.Broken.run(pool=one)

    def test_a_program_may_be_named(self, one: BasePool) -> None:
        assert one.submit("dspex.testing.pool_programs:Echo", 1).result() == [[1], {}]

    def test_many_threads_may_call(self, one: BasePool) -> None:
        def work(number: int) -> list[Any]:
            return [those.Echo.run(number, pool=one)[0][0] for _ in range(20)]

        with ThreadPoolExecutor(8) as threads:
            assert [[number] * 20 for number in range(8)] == list(threads.map(work, range(8)))

    def test_a_coroutine_awaits_its_call(self, one: BasePool) -> None:
        async def main() -> Any:
            runs = await asyncio.gather(*(those.Echo.arun(n, pool=one) for n in range(5)))
            return [args for args, _ in runs], await one.asubmit(those.Echo, 7)

        assert asyncio.run(main()) == ([[0], [1], [2], [3], [4]], [[7], {}])

    def test_who_waits_at_once_and_who_waits_later_may_take_turns(
        self, one: BasePool, session: Session
    ) -> None:
        async def later() -> Any:
            return await one.asubmit(those.Echo, 2, session=session, deadline=SOON)

        for _ in range(20):
            assert those.Echo.run(1, session=session, pool=one, timeout=SOON) == [[1], {}]
            assert one.submit(those.Echo, 1, session=session, deadline=SOON).result() == [[1], {}]
            assert asyncio.run(later()) == [[2], {}]

    def test_an_async_program_keeps_its_loop_between_calls(self, make: Any) -> None:
        pool = make(workers=1)
        assert those.Awaiting.run(0, pool=pool) == those.Awaiting.run(0, pool=pool)

    # ---- state -------------------------------------------------------------------------------------

    def test_a_run_sees_every_set_that_its_caller_had_made(self, one: BasePool, session: Session) -> None:
        assert those.Knobs.run(session=session, pool=one) == (0.7, 0)
        for step in range(100):
            session.update({"temperature": step / 100, "steps": step})
            assert (step / 100, step) == those.Knobs.run(session=session, pool=one)

    def test_the_sets_of_a_run_are_those_of_the_session(self, one: BasePool, session: Session) -> None:
        for value in (0.25, 0.5):
            assert those.Setting.run(value, session=session, pool=one) == value
            assert session.get("best") == value
        assert session.record("best").source == "Setting"

    def test_a_program_stays_bound_to_its_session(self, one: BasePool, session: Session) -> None:
        first, again = (those.Where.run(session=session, pool=one) for _ in range(2))
        assert (first[:2], 2) == (again[:2], again[2])

    def test_a_fork_is_a_session_of_its_own(self, one: BasePool, session: Session) -> None:
        those.Knobs.run(session=session, pool=one)
        with session.fork({"temperature": 0.1}) as fork:
            assert those.Knobs.run(session=fork, pool=one) == (0.1, 0)
        assert those.Knobs.run(session=session, pool=one) == (0.7, 0)

    def test_a_pinned_run_reads_what_its_caller_had(self, one: BasePool, session: Session) -> None:
        those.Knobs.bind(session)
        session.set("steps", 3)
        assert those.Knobs.run(session=session, pool=one, pin=True) == (0.7, 3)

    def test_a_bound_program_runs_on_its_session(self, one: BasePool, session: Session) -> None:
        knobs = those.Knobs.bind(session)
        knobs.steps = 9
        assert knobs.run(pool=one) == (0.7, 9)

    def test_without_a_session_every_run_has_one_of_its_own(self, make: Any) -> None:
        pool = make(workers=1)
        assert [those.Where.run(pool=pool)[2] for _ in range(2)] == [1, 1]

    def test_a_session_stays_with_its_worker(self, one: BasePool) -> None:
        with contextlib.ExitStack() as open_ones:
            sessions = [open_ones.enter_context(Session()) for _ in range(8)]
            calls = [
                (session.id, one.submit(those.Where, session=session))
                for _ in range(5)
                for session in sessions
            ]
            seen = {(name, call.result()[0]) for name, call in calls}
        assert len(seen) == 8
        assert len({pid for _, pid in seen}) == 2

    def test_without_affinity_whoever_is_free_runs_it(self, make: Any, session: Session) -> None:
        pool = make(workers=2, affinity="none")
        calls = [pool.submit(those.Where, 0.2, session=session) for _ in range(2)]
        assert len({call.result()[0] for call in calls}) == 2

    # ---- errors ------------------------------------------------------------------------------------

    def test_an_error_comes_back_as_itself(self, one: BasePool) -> None:
        with pytest.raises(ValueError, match="no such thing") as raised:
            those.Failing.run("builtin", pool=one)
        assert raised.value.args == ("no such thing", 7)
        with pytest.raises(those.Quirky) as quirky:
            those.Failing.run("quirky", pool=one)
        assert (quirky.value.code, quirky.value.hint, str(quirky.value)) == (7, "look there", "code 7")
        with pytest.raises(FileNotFoundError) as gone:
            those.Failing.run("os", pool=one)
        assert (gone.value.errno, gone.value.filename) == (2, "/nowhere")

    def test_an_error_tells_where_it_was_raised(self, one: BasePool, session: Session) -> None:
        with pytest.raises(ValueError, match="no such") as raised:
            those.Failing.run("builtin", pool=one, session=session)
        notes = "\n".join(raised.value.__notes__)
        assert "in Failing on session" in notes
        assert "pool_programs.py" in notes

    def test_an_error_of_dspex_keeps_its_facts(self, one: BasePool, session: Session) -> None:
        those.Knobs.bind(session)
        with pytest.raises(InvalidValue, match=r"must be at most 1.5") as raised:
            those.Failing.run("variable", pool=one, session=session)
        assert raised.value.name == "temperature"  # type: ignore[attr-defined]

    @pytest.mark.parametrize("how", ["local", "unsendable"])
    def test_an_error_whose_class_cannot_be_had_here_says_all_about_it(self, one: BasePool, how: str) -> None:
        with pytest.raises(ProgramError) as raised:
            those.Failing.run(how, pool=one)
        assert "Traceback" in raised.value.traceback  # type: ignore[attr-defined]
        assert ("nobody knows me" in str(raised.value)) == (how == "local")

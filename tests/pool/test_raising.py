"""What a program or a tool raises comes back, also where it looks like the end of its worker."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from threading import Event

import pytest

pytest.importorskip("grpc")

from dspex import DeadlineExceeded, ProgramError, Session, WorkerLost, tool
from dspex.pool import Pool
from dspex.testing import pool_programs as those

MINE = '''
import asyncio
import builtins
import os

from dspex import Program


class Raises(Program):
    """Raises the error of that name, or what the tool of that name does; else says who it is."""

    def forward(self, name=None, tool=None):
        if tool is not None:
            self.tools[tool]()
        elif name == "asyncio.CancelledError":
            raise asyncio.CancelledError
        elif name is not None:
            raise getattr(builtins, name)("mine")
        return os.getpid()


class RaisesInLoop(Program):
    """The same, awaited."""

    async def aforward(self, name):
        if name == "asyncio.CancelledError":
            raise asyncio.CancelledError
        raise getattr(builtins, name)("mine")
'''

OWN = [ConnectionResetError, BrokenPipeError, EOFError, BlockingIOError, InterruptedError, TimeoutError]
"""What a worker's own channel may raise."""

ENDS = ["SystemExit", "KeyboardInterrupt", "GeneratorExit", "asyncio.CancelledError"]
"""What ends a thread, a process or a task, and is no Exception."""


@pytest.fixture(scope="module")
def mine(tmp_path_factory):
    """A pool of one worker that serves `Raises`, and the name of that."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "raising_programs.py").write_text(MINE)
    sys.path.insert(0, str(folder))
    serves = ["raising_programs:Raises", "raising_programs:RaisesInLoop", *those.ALL]
    with Pool(serves, workers=1, spares=0, timeout=30) as one:
        yield one
    sys.path.remove(str(folder))


def run(pool, *inputs, program="Raises", **settings):
    return pool.submit(f"raising_programs:{program}", inputs, **settings).result(20)


@pytest.mark.parametrize("error", OWN)
def test_an_error_that_looks_like_the_end_of_the_channel_is_the_programs(mine, error):
    before = run(mine)
    with pytest.raises(error, match="mine"):
        run(mine, error.__name__)
    assert run(mine) == before


@pytest.mark.parametrize("program", ["Raises", "RaisesInLoop"])
@pytest.mark.parametrize("name", ENDS)
def test_a_program_that_wants_to_end_its_worker_has_failed(mine, name, program):
    before = run(mine)
    with pytest.raises(ProgramError) as raised:
        run(mine, name, program=program)
    assert raised.value.type.endswith(name.rpartition(".")[2])
    assert run(mine) == before


@pytest.mark.parametrize("error", [ConnectionResetError, EOFError])
def test_an_error_of_a_tool_that_looks_like_the_end_of_the_channel_comes_back(mine, error):
    @tool
    def breaks() -> None:
        raise error("theirs")

    with Session() as session:
        breaks.offer(session)
        before = run(mine)
        with pytest.raises(error, match="theirs"):
            run(mine, None, "breaks", session=session)
        assert run(mine) == before


@pytest.mark.parametrize("error", [asyncio.CancelledError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_a_tool_raises_comes_back_whatever_it_is(mine, error):
    @tool
    def breaks() -> None:
        raise error

    with Session() as session:
        breaks.offer(session)
        with pytest.raises(ProgramError) as raised:
            run(mine, None, "breaks", session=session)
        assert raised.value.type.endswith(error.__name__)


def test_a_worker_that_is_told_to_end_does_so_in_the_middle_of_a_call(pool, tmp_path, eventually):
    one = pool(workers=1)
    call = one.submit(those.Counting, (str(tmp_path / "log"), 60.0))
    eventually((tmp_path / "log").exists, "the program has begun")
    os.kill(one.stats().workers[0].pid, signal.SIGTERM)
    with pytest.raises(WorkerLost, match="ended with status 143"):
        call.result(20)


@pytest.mark.parametrize("how", ["late", "cancelled"])
def test_a_tool_that_streams_just_now_does_not_keep_the_call_from_its_end(mine, caplog, how):
    entered, go, left = Event(), Event(), Event()

    @tool
    def pieces() -> Iterator[int]:
        try:
            entered.set()
            go.wait(20)
            yield 1
        finally:
            left.set()

    with Session() as session:
        pieces.offer(session)
        before = run(mine)
        call = mine.submit(
            those.Asking,
            {"name": "pieces", "stream": True},
            session=session,
            deadline=1.0 if how == "late" else 20.0,
        )
        assert entered.wait(20)
        if how == "late":
            with pytest.raises(DeadlineExceeded):
                call.result(20)
        else:
            assert call.cancel()
        assert run(mine) == before  # its program was told, and has ended
        assert not left.is_set()
        go.set()
        assert left.wait(20)
    assert "stumbled" not in caplog.text

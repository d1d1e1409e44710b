"""What a pool of this machine does beyond the contract, and what it says when it cannot."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError

import pytest

pytest.importorskip("grpc")

from dspex import (
    InvalidDeclaration,
    InvalidValue,
    LimitExceeded,
    PoolClosed,
    PoolSaturated,
    Session,
    UnknownProgram,
    WorkerLost,
)
from dspex.errors import DeadlineExceeded
from dspex.pool import Pool, programs, scheduling
from dspex.pool.channel import FRAME
from dspex.testing import pool_programs as those
from dspex.testing.pool_programs import ALL

NAMED = "dspex.testing.pool_programs"
METHODS = ["spawn", *(["forkserver"] if hasattr(os, "pidfd_open") else [])]


@pytest.fixture(scope="module")
def shared():
    with Pool(ALL, workers=2, spares=0) as one:
        yield one


# ---- how it is made ------------------------------------------------------------------------------------


def test_a_setting_that_there_is_not_is_named_with_the_near_one():
    with pytest.raises(InvalidDeclaration, match=r"^a pool has no setting 'worker'\. Did you mean 'workers'"):
        Pool(ALL, worker=2)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"workers": 0}, r"^workers must be an integer from 1 \(got 0\)"),
        ({"patience": -1.0}, r"^patience must be more than 0 seconds \(got -1\.0\)"),
        ({"recycle_bytes": 0}, r"^recycle_bytes must be more than 0 \(got 0\)"),
        ({"environment": ["A"]}, r"^environment must be a mapping of names to texts \(got \['A'\]\)"),
        ({"environment": {"A": 1}}, r"^environment\['A'\] must be text without NUL \(got 1\)"),
        ({"environment": {"A=B": "1"}}, r"^environment must be named by text without '=' .* \(got 'A=B'\)"),
        ({"affinity": "strikt"}, r"^affinity must be one of .* Did you mean 'strict'\? \(got 'strikt'\)"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(settings, sentence):
    with pytest.raises(InvalidValue, match=sentence):
        Pool(ALL, **settings)


def test_a_pool_is_not_made_by_a_worker_that_imports_the_script(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", type(sys)(programs.MAIN))
    with pytest.raises(InvalidDeclaration, match='Put that line under if __name__ == "__main__":'):
        Pool(ALL)


def test_a_pool_that_cannot_start_is_closed_when_it_is_entered():
    pool = Pool([those.Broken], workers=1, spares=0)
    with pytest.raises(WorkerLost, match="the model is not there"), pool:
        pytest.fail("it was entered")
    with pytest.raises(PoolClosed):
        pool.submit(those.Broken)
    assert pool.stats().workers == ()


@pytest.mark.parametrize("start_method", METHODS)
@pytest.mark.parametrize(
    ("program", "sentence", "cause"),
    [
        (those.Broken, "cannot start: the model is not there", RuntimeError),
        (those.Exits, "ended with status 5 while it started", type(None)),
        (those.Hangs, "cannot start: it was not ready within 0.5 s", type(None)),
    ],
)
def test_a_worker_that_cannot_start_is_told_at_once_and_tried_five_times(
    program, sentence, cause, start_method
):
    start = time.monotonic()
    limit = 0.5 if program is those.Hangs else 30
    made = Pool([program], workers=1, spares=0, start=limit, start_method=start_method)
    try:
        waiting = made.submit(program)
        with pytest.raises(WorkerLost, match=sentence) as raised:
            made.wait_ready()
        assert isinstance(raised.value.__cause__, cause)
        assert time.monotonic() - start < 15
        with pytest.raises(WorkerLost, match=sentence):
            waiting.result(30)
        assert made.stats().quarantined == 1
        assert made.stats().tally.started == 5
        with pytest.raises(WorkerLost, match=sentence):
            made.submit(program)
        assert made.stats().tally.started == 5
    finally:
        made.close()


def test_a_worker_that_the_system_does_not_start_is_told(caplog, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    pool = Pool(ALL, workers=1, spares=0, restarts=2)
    with Session() as session:
        try:
            for call in (pool.wait_ready, lambda: pool.submit(those.Echo, session=session).result(30)):
                with pytest.raises(WorkerLost, match=r"could not be started: .*/nowhere/python") as raised:
                    call()
                assert isinstance(raised.value.__cause__, FileNotFoundError)
        finally:
            pool.close()
    (record, *_) = [one for one in caplog.records if one.message == "a worker could not be started"]
    assert vars(record)["dspex.worker"] == "0"


def test_starts_that_failed_long_ago_do_not_count(eventually, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    pool = Pool(ALL, workers=1, spares=0, restarts=2, window=1e-9)
    eventually(lambda: pool.stats().tally.started >= 5, "it was tried five times")
    assert pool.stats().quarantined == 0
    pool.close()


def test_who_waits_for_workers_is_told_that_they_take_too_long_or_that_the_pool_was_closed():
    pool = Pool([those.Hangs], workers=1, spares=0)
    with pytest.raises(DeadlineExceeded, match=r"not ready within 0\.01 s"):
        pool.wait_ready(0.01)
    assert repr(pool) == "<Pool 0 workers, 0 busy, 0 calls wait>"
    pool.close()
    with pytest.raises(PoolClosed, match="closed before its workers were ready"):
        pool.wait_ready()


def test_an_error_inside_a_with_ends_what_runs():
    def fail():
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"), Pool([those.Slow], workers=1, spares=0) as pool:
        call = pool.submit(those.Slow, 60)
        fail()
    with pytest.raises(PoolClosed):
        call.result(0)


# ---- calls ---------------------------------------------------------------------------------------------


def test_inputs_that_are_larger_than_a_message_are_refused(shared):
    with pytest.raises(
        LimitExceeded, match=rf"^the inputs of {NAMED}:Echo take \d+ bytes; the limit is"
    ) as e:
        shared.submit(those.Echo, bytes(FRAME))
    assert e.value.limit == FRAME - 4096


def test_a_result_that_nobody_here_can_read_is_an_error_of_the_call(shared):
    assert shared.submit(those.Moody).result().mood is those.Mood.GOOD
    with pytest.raises(InvalidValue, match="of a class that the annotations of forward name"):
        shared.submit(f"{NAMED}:Moody").result()


def test_a_worker_that_a_nameless_signal_has_killed_is_told_by_its_number(pool, eventually):
    number = signal.SIGRTMIN + 6
    if number in set(signal.Signals):
        pytest.skip("here every signal has a name")
    workers = pool(workers=1)
    call = workers.submit(those.Slow, 60)
    eventually(call.running, "it runs")
    os.kill(workers.stats().workers[0].pid, number)
    with pytest.raises(WorkerLost, match=f"was killed by signal {number} while it ran") as raised:
        call.result(30)
    assert (raised.value.signal, raised.value.exit_code) == (number, None)


def test_calls_of_many_sessions_leave_nothing_but_the_last_places(shared, monkeypatch):
    monkeypatch.setattr(scheduling, "HOMES", 3)
    sessions = [Session() for _ in range(8)]
    for session in sessions:
        assert those.Echo.run(session.id, session=session, pool=shared) == [[session.id], {}]
        session.close()
    assert len(shared._homes) <= 3


def test_calls_that_were_cancelled_while_they_waited_leave_nothing(pool):
    workers = pool(workers=1, queue=1)
    busy = workers.submit(those.Slow, 60)
    for _ in range(200):
        assert workers.submit(those.Echo).cancel()
    last = workers.submit(those.Echo, 1)
    assert (len(workers._anywhere), len(workers._expiring)) <= (67, 67)
    busy.cancel()
    assert last.result(30) == [[1], {}]
    assert workers.stats().tally.cancelled == 201


# ---- streams -------------------------------------------------------------------------------------------


def test_leaving_the_block_of_a_stream_ends_the_program(shared, tmp_path, eventually):
    with shared.stream(those.Pieces, (10**9, str(tmp_path / "given"))) as pieces:
        assert [next(pieces), next(pieces)] == [0, 1]
    eventually((tmp_path / "given").exists, "the program was left")


def test_an_awaited_stream_is_left_by_its_block_and_by_closing_it(shared, tmp_path, eventually):
    def numbers(name):
        return shared.astream(those.Pieces, (10**9, str(tmp_path / name)))

    async def main():
        async with numbers("block") as pieces:
            assert [await anext(pieces), await anext(pieces)] == [0, 1]
        pieces = numbers("closed")
        assert await anext(pieces) == 0
        await pieces.aclose()

    asyncio.run(main())
    for name in ("block", "closed"):
        eventually((tmp_path / name).exists, f"{name} was left")


def test_cancelling_a_task_that_waits_for_a_piece_ends_the_program(shared, eventually):
    async def main():
        stream = shared.astream(those.Slow, 60)
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)  # it begins to wait
        while not stream._call.running():  # noqa: ASYNC110 - there is no event for that
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(StopAsyncIteration):
            while True:
                await anext(stream)
        return stream._call

    assert asyncio.run(main()).cancelled()
    eventually(lambda: not shared.stats().busy, "its worker has nothing to do")


# ---- many ----------------------------------------------------------------------------------------------


def test_map_waits_for_room_that_it_takes_itself(pool):
    workers = pool(workers=1, queue=1)
    found = list(workers.map(those.Echo, range(6), in_flight=5))
    assert [one.output for one in found] == [[[n], {}] for n in range(6)]
    assert workers.stats().tally.rejected > 0


def test_map_gives_up_items_for_which_others_leave_no_room(pool):
    workers = pool(workers=1, queue=0)
    busy = workers.submit(those.Slow, 60)
    (one,) = workers.map(those.Echo, ["a"])
    assert (one.inputs, one.output, type(one.error), one.seconds) == ("a", None, PoolSaturated, 0.0)
    busy.cancel()
    with pytest.raises(CancelledError):
        busy.result()


def test_map_goes_on_after_an_item_that_failed(shared):
    found = list(shared.map(those.Failing, ["builtin", "os"]))
    assert [type(one.error) for one in found] == [ValueError, FileNotFoundError]
    assert [one.output for one in found] == [None, None]
    assert all(one.seconds > 0 for one in found)


def test_map_raises_what_is_of_no_item(shared):
    with pytest.raises(UnknownProgram, match="does not serve"):
        list(shared.map(those.Broken, [1, 2]))


def test_a_map_that_is_left_cancels_what_is_on_its_way(pool):
    workers = pool(workers=1)
    found = workers.map(those.Slow, [0.0, 60, object(), 60], in_flight=3)
    assert next(found).output == "slept"
    found.close()
    assert workers.stats().tally.cancelled >= 1
    assert those.Echo.run(1, pool=workers) == [[1], {}]


def test_map_shows_a_bar(shared, capsys):
    pytest.importorskip("rich")
    assert [one.output for one in shared.map(those.Echo, [1, 2, 3], progress=True)] == [
        [[1], {}],
        [[2], {}],
        [[3], {}],
    ]
    assert "3/3" in capsys.readouterr().out


def test_a_bar_needs_the_extra(shared, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(ImportError, match=r"dspex\[cli\]"):
        list(shared.map(those.Echo, [1], progress=True))


# ---- workers that come and go --------------------------------------------------------------------------


def test_a_pool_has_one_worker_at_least(shared, eventually):
    with pytest.raises(InvalidValue, match=r"^workers must be an integer from 1 \(got 0\)"):
        shared.resize(0)
    eventually(lambda: shared.stats().ready == 2, "both are there")


def test_calls_that_wait_for_a_worker_that_goes_are_run_by_another(pool):
    workers = pool(workers=2)
    sessions = [Session(f"s{number}") for number in range(16)]
    calls = [workers.submit(those.Where, 0.01, session=session) for session in sessions]
    workers.resize(1)
    assert len({call.result(30)[0] for call in calls}) == 2
    assert len({those.Where.run(session=session, pool=workers)[0] for session in sessions}) == 1
    for session in sessions:
        session.close()


def test_a_spare_takes_the_place_of_a_worker_that_is_worn(pool, eventually):
    workers = pool(workers=1, spares=1, recycle_calls=5)
    eventually(lambda: workers.stats().spares == 1, "a spare is ready")
    (spare,) = {one.pid for one in workers.stats().workers} - {those.Where.run(pool=workers)[0]}
    eventually(lambda: those.Where.run(pool=workers)[0] == spare, "the spare runs calls")
    eventually(lambda: workers.stats().tally.recycled == 1, "the worn one has left")
    assert workers.stats().tally.lost == 0


def test_a_worker_is_replaced_where_the_system_does_not_tell_that_it_has_ended(pool, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    workers = pool(workers=1, heartbeat=0.2, misses=1000)
    before = those.Where.run(pool=workers)[0]
    with pytest.raises(WorkerLost, match="ended with status 3 while it ran"):
        workers.submit(those.Dying, "exit").result(30)
    assert those.Where.run(pool=workers)[0] != before
    assert workers.stats().tally.lost == 1


def test_closing_takes_no_longer_where_the_system_does_not_tell_that_a_worker_has_ended(pool, monkeypatch):
    monkeypatch.delattr(os, "pidfd_open", raising=False)
    workers = pool(workers=2, heartbeat=600, grace=600)
    start = time.monotonic()
    workers.close()
    assert time.monotonic() - start < 10


FRAGILE = """
import os, time
from pathlib import Path
from dspex import Program

if Path(__file__).with_name("broken").exists():
    raise RuntimeError("it is broken")

class Fragile(Program):
    def forward(self, until=None):
        while until is not None and not Path(until).exists():
            time.sleep(0.001)
        return os.getpid()
"""


def test_calls_that_wait_for_a_worker_that_cannot_start_again_are_run_by_another(
    pool, tmp_path, monkeypatch, eventually
):
    (tmp_path / "fragile.py").write_text(FRAGILE)
    monkeypatch.syspath_prepend(tmp_path)
    workers = pool("fragile:Fragile", workers=2, restarts=1)
    program, end = "fragile:Fragile", str(tmp_path / "end")
    sessions = [Session(f"s{number}") for number in range(16)]
    homes = {session: workers.submit(program, session=session).result(30) for session in sessions}
    first, other = dict.fromkeys(homes.values())
    session = next(one for one in sessions if homes[one] == first)
    running, *waiting = [workers.submit(program, (end,), session=session) for _ in range(3)]
    eventually(running.running, "it runs")
    (tmp_path / "broken").touch()
    os.kill(first, signal.SIGKILL)
    with pytest.raises(WorkerLost, match="was killed by SIGKILL"):
        running.result(30)
    (tmp_path / "end").touch()
    assert [call.result(30) for call in waiting] == [other] * 2
    assert workers.stats().quarantined == 1
    for one in sessions:
        one.close()


# ---- other processes -----------------------------------------------------------------------------------

SCRIPT = """
import os, warnings
from dspex import PoolClosed, Program
from dspex.pool import Pool

warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is the point

class Mine(Program):
    def forward(self, number):
        return number + 1, __name__

def child(pool):
    try:
        pool.submit(Mine, 1)
    except PoolClosed:
        pool.close()
        return 7
    return 1

if __name__ == "__main__":
    with Pool([Mine], workers=1, spares=0) as pool:
        print(Mine.run(1, pool=pool))
        if (pid := os.fork()) == 0:
            code = 1
            try:
                code = child(pool)
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        print(Mine.run(2, pool=pool))
"""


def test_a_script_runs_its_own_programs_and_what_it_forks_leaves_the_pool_alone(script):
    assert script(SCRIPT).splitlines() == ["(2, '__mp_main__')", "7", "(3, '__mp_main__')"]


MINE = """
from dspex import Program
from dspex.pool import Pool

class Mine(Program):
    def forward(self):
        return "mine"

if __name__ == "__main__":
    with Pool([Mine], workers=1, spares=0) as pool:
        print(Mine.run(pool=pool))
"""

HELD = """
import os, signal, threading
from dspex import Program
from dspex.errors import PoolClosed
from dspex.pool import Pool

class Mine(Program):
    def forward(self):
        return "mine"

if __name__ == "__main__":
    with Pool([Mine], workers=1, spares=0) as pool:
        held, go = threading.Event(), threading.Event()

        def holder():
            with pool._lock:
                held.set()
                go.wait()

        threading.Thread(target=holder).start()
        held.wait()
        if (pid := os.fork()) == 0:
            signal.alarm(20)
            try:
                pool.submit(Mine)
            except PoolClosed as error:
                print(error, flush=True)
            print(pool.drain(), pool.stats().queued, flush=True)
            os._exit(0)
        os.waitpid(pid, 0)
        go.set()
        print(Mine.run(pool=pool))
"""


def test_a_fork_is_told_that_the_pool_is_not_its_own_whatever_the_parent_was_doing(script):
    assert script(HELD).splitlines() == [
        "this pool is of the process that made it, and this one is a fork of that: make another here.",
        "True 0",
        "mine",
    ]


def test_a_call_without_time_is_not_begun_and_says_so(shared, tmp_path):
    log = tmp_path / "log"
    call = shared.submit(those.Counting, str(log), deadline=0)
    with pytest.raises(
        DeadlineExceeded, match=r"Counting was not begun within 0 s: no time was left"
    ) as late:
        call.result(20)
    assert late.value.facts["started"] is False
    assert shared.submit(those.Echo, 1).result(20) == [[1], {}]
    assert not log.exists()


@pytest.mark.parametrize(
    ("inputs", "place"),
    [
        ((object(),), r"inputs\['path'\]"),
        (("a", 1.0, [object()]), r"inputs\['mark'\]\[0\]"),
        ({"path": {1}}, r"inputs\['path'\]"),
    ],
)
def test_an_input_that_cannot_travel_is_named(shared, inputs, place):
    with pytest.raises(InvalidValue, match=f"^{place} must be plain data"):
        shared.submit(those.Counting, inputs)


def test_a_script_is_run_in_workers_that_import_multiprocessing_at_their_start(script, tmp_path, monkeypatch):
    # Which makes another name for their main module, the one under which the script is run.
    (tmp_path / "sitecustomize.py").write_text("import multiprocessing\n")
    source = f"import os\nos.environ['PYTHONPATH'] += ':{tmp_path}'\n{MINE}"
    assert script(source) == "mine\n"


def test_a_program_of_a_script_that_came_through_a_pipe_cannot_be_imported():
    source = HELD.partition("    with Pool")[0] + "    Pool([Mine])"
    ended = subprocess.run([sys.executable, "-"], input=source, capture_output=True, text=True, check=False)
    assert "this Python was not started from a file" in ended.stderr

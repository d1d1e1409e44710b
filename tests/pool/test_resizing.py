"""Pools that get smaller and larger while workers start, fail and run."""

from __future__ import annotations

import os
import select
import signal
import threading
from pathlib import Path

import pytest

pytest.importorskip("grpc")

from dspex import PoolClosed, WorkerLost
from dspex.pool import supervision
from dspex.testing import pool_programs as those
from dspex.testing.pool_programs import ALL

GATED = """
import os, time
from pathlib import Path
from dspex import Program

here = Path(__file__).parent
(here / f"worker-{os.getpid()}").touch()
while (here / "gate").exists():
    time.sleep(0.001)
if (here / "broken").exists():
    raise RuntimeError("it is broken")

class Gated(Program):
    def forward(self):
        return os.getpid()
"""
"""A worker that imports it tells its number, waits while there is a `gate`, and fails if it is `broken`."""

NAME = "gated:Gated"


@pytest.fixture
def gated(tmp_path, monkeypatch) -> Path:
    """The folder of the program."""
    (tmp_path / "gated.py").write_text(GATED)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def started(folder: Path) -> set[int]:
    """The workers that have begun to import the program."""
    return {int(one.name.partition("-")[2]) for one in folder.glob("worker-*")}


@pytest.fixture
def starting(pool, gated, eventually):
    """Make a pool of which one worker is ready and another waits at the gate: the pool, and that worker."""

    def make(**settings):
        workers = pool(NAME, workers=1, **settings)
        before = started(gated)
        (gated / "gate").touch()
        workers.resize(2)
        eventually(lambda: started(gated) - before, "the second worker starts")
        (pid,) = started(gated) - before
        return workers, pid

    return make


def test_a_worker_that_starts_and_is_not_wanted_has_no_successor(starting, gated, lives, eventually):
    workers, pid = starting()
    workers.resize(1)
    eventually(lambda: not lives(pid), "it has ended")
    (gated / "gate").unlink()
    workers.resize(2)
    workers.wait_ready()  # one that was to be started before it has been
    assert workers.stats().tally.started == 3
    assert (workers.stats().ready, len(workers.stats().workers)) == (2, 2)
    workers.close()
    assert not any(map(lives, started(gated)))


def test_a_closed_pool_gets_no_workers(pool):
    workers = pool(workers=1)
    workers.close()
    with pytest.raises(PoolClosed, match="has no workers any more"):
        workers.resize(2)


@pytest.mark.parametrize("end", ["close", "drain"])
def test_a_pool_that_ends_while_a_worker_is_given_up_leaves_nobody(starting, gated, lives, eventually, end):
    workers, _ = starting()
    workers.resize(1)
    getattr(workers, end)()
    assert not any(map(lives, started(gated)))
    assert workers.stats().workers == ()


def test_a_start_that_was_due_where_a_worker_is_not_wanted_any_more_is_left_out(
    pool, gated, monkeypatch, eventually
):
    monkeypatch.setattr(supervision, "BACKOFF", 0.3)
    workers = pool(NAME, workers=2)
    slot = workers._slots[1]
    (gated / "broken").touch()
    os.kill(slot.member.pid, signal.SIGKILL)
    eventually(lambda: len(slot.failures) == 2, "two starts have failed, and the third one has to wait")
    workers.resize(1)
    (gated / "broken").unlink()
    os.kill(workers._slots[0].member.pid, signal.SIGKILL)
    eventually(lambda: not slot.due, "its time has come")
    eventually(lambda: workers.stats().ready == 1, "the other one was replaced")
    assert workers.stats().tally.started == 2 + 2 + 1
    assert slot.all == []


def test_a_worker_that_is_ready_too_late_gets_no_call(pool, eventually):
    workers = pool(workers=1, affinity="none")
    held, go = threading.Event(), threading.Event()
    workers.resize(2)
    coming = workers._slots[1]
    eventually(lambda: coming.coming is not None, "the second worker starts")
    with workers._lock:
        workers._at(0.0, lambda: (held.set(), go.wait()))
    assert held.wait(30), "the thread of the pool waits"
    says = coming.coming.work.fileno()
    assert select.select([says], [], [], 30)[0], "it says that it is ready"
    running, waiting = workers.submit(those.Where, 0.1), workers.submit(those.Where)
    workers.resize(1)
    go.set()
    assert running.result(30)[0] == waiting.result(30)[0]
    assert workers.stats().tally.lost == 0


def test_calls_that_wait_are_refused_where_no_worker_can_start_in_what_is_left(pool, gated, eventually):
    workers = pool([NAME, *ALL], workers=2, affinity="none", restarts=1)
    (gated / "broken").touch()
    os.kill(workers._slots[0].member.pid, signal.SIGKILL)
    eventually(lambda: workers.stats().quarantined == 1, "no worker can start in the first slot")
    running = workers.submit(those.Where, 0.5)
    waiting = workers.submit(NAME)
    workers.resize(1)
    with pytest.raises(WorkerLost, match="it is broken"):
        waiting.result(30)
    assert running.result(30)


def test_workers_are_told_apart_by_their_names(pool, eventually):
    workers = pool(workers=2)
    names = [one.name for one in workers.stats().workers]
    workers.resize(1)
    workers.resize(2)
    workers.wait_ready()
    eventually(lambda: len(workers.stats().workers) == 2, "the former one has left")
    assert not {one.name for one in workers.stats().workers}.issubset(names)

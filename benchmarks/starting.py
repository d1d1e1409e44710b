"""How long a worker takes to start, beside a Python with the same imports; a table of `pool.py`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from timing import AGAIN, Goal, Row, Table, measured

from dspex import Session
from dspex.pool import Pool
from dspex.testing.pool_programs import Echo, Slow

BARE = """
import sys, time
import dspex.rpc.client, dspex.pool.running
import dspex.testing.pool_programs
sys.stdin.readline()
print("ready", flush=True)
"""


@contextmanager
def another(method: str) -> Iterator[Callable[[], float]]:
    """Start one more worker of a pool whose only one is at work, until it has answered."""
    with (
        Session() as session,
        Pool([Echo, Slow], workers=1, spares=0, affinity="none", start_method=method) as pool,
    ):

        def once() -> float:
            busy = pool.submit(Slow, 60)
            while not busy.running():
                time.sleep(0.001)
            start = time.perf_counter()
            pool.resize(2)
            Echo.run(session=session, pool=pool)
            took = time.perf_counter() - start
            busy.cancel()
            pool.resize(1)
            while len(pool.stats().workers) > 1:
                time.sleep(0.001)
            return took

        once()
        yield once


def starting(rounds: int) -> Table:
    def bare() -> float:
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-c", BARE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        process.communicate("go\n")
        return time.perf_counter() - start

    def ours(method: str) -> Callable[[], float]:
        def once() -> float:
            with Session() as session:
                start = time.perf_counter()
                pool = Pool([Echo], workers=1, spares=0, start_method=method)
                Echo.run(session=session, pool=pool)
                took = time.perf_counter() - start
                pool.close()
            return took

        return once

    ours("spawn")()  # the server for sessions is this process's, and started once
    label, forked = "dspex, a pool of one worker: first answer", "dspex, one more worker, fork server"
    with another("spawn") as spawned, another("forkserver") as by_server:
        rows = [
            Row("a Python with the same imports, one line each way", bare),
            Row(AGAIN, bare),
            Row(label, ours("spawn")),
            Row("dspex, the same with a fork server", ours("forkserver")),
            Row("dspex, one more worker", spawned),
            Row(forked, by_server),
        ]
        goals = [Goal(label, 1.15, rows[0].label), Goal(forked, 0.75, rows[0].label)]
        return measured("start", "Starting a worker: first answer", rows, goals, rounds=rounds)

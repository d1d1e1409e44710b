"""
How fast a session of a server is, beside bare grpcio on the same socket in the same run.

    python benchmarks/remote.py [--quick] [--check] [--json FILE] [--docs FILE]

Prints its tables as Markdown, each with the goals that dspex has there. Where etcd is installed, it takes
part.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from statistics import median
from typing import Any

import grpc
from timing import AGAIN, Goal, Row, Table, finish, machine, measured, size, statement

from dspex import Float, Program, Session, Text, defvariable
from dspex.commits import Commit, Declaration, Write
from dspex.rpc import RemoteStore

PACKAGES = ("grpcio", "protobuf", "msgspec")
PAYLOAD = b"x" * 32
MEBIBYTE = "x" * (1024 * 1024 - 16)
CALLS = 100
EVENTS = 40
THREADS = 64

SESSIONS = 10_000
VARIABLES = 10

PLAIN = "limit: a plain attribute"
HERE = "limit: session.get of a session of this process"
UNARY = "limit: bare grpcio, unary call of 32 B"
STREAM = "limit: bare grpcio, an event of a stream to a callback"
FAN = "limit: bare grpcio, one stream and 100 callbacks"
ROUTE = "limit: bare grpcio, unary call, then an event to another process"
CALLERS = f"limit: bare grpcio, {THREADS} threads with unary calls"
SINGLE = "dspex, 64 times set"
LARGE = "limit: bare grpcio, unary call of 1 MiB each way"

SERVER = """
import asyncio, struct, sys, time
import grpc, grpc.aio
from dspex import Float, Session
from dspex.rpc import Server
from dspex.rpc.limits import Limits
from dspex.rpc.loops import in_loop, loop
from dspex.stores import MemoryStore

folder = sys.argv[1]
limits = Limits(commits=1e9)
server = Server(MemoryStore(), f"unix://{folder}/dspex", limits=limits).start()
queues = {b"push": set(), b"route": set()}

class Bare(grpc.GenericRpcHandler):
    def service(self, details):
        async def unary(request, context):
            return request
        async def route(request, context):
            tell(b"route", request)
            return request
        async def events(request, context):
            queue = asyncio.Queue()
            queues[request].add(queue)
            while True:
                await context.write(await queue.get())
        if details.method == "/bare/Events":
            return grpc.unary_stream_rpc_method_handler(events)
        return grpc.unary_unary_rpc_method_handler(route if details.method == "/bare/Route" else unary)

async def bare():
    options = [("grpc.max_receive_message_length", 4 << 20), ("grpc.max_send_message_length", 4 << 20)]
    started = grpc.aio.server(options=options)
    started.add_generic_rpc_handlers((Bare(),))
    started.add_insecure_port(f"unix:{folder}/bare")
    await started.start()
    return started

def tell(who, data):
    for queue in queues[who]:
        queue.put_nowait(data)

keep = in_loop(bare())
sessions = [Session(name, store=server.store) for name in ("push", "route")]
for session in sessions:
    session.register("at", Float(), initial=0.0)
print("ready", flush=True)
for line in sys.stdin:
    what, count = line.split()
    for _ in range(int(count)):
        if what == "bare":
            loop().call_soon_threadsafe(tell, b"push", struct.pack("d", time.perf_counter()))
        else:
            sessions[0].set("at", time.perf_counter())
        time.sleep(0.002)
"""

COUNTED = """
import gc, sys
from pathlib import Path
from dspex.rpc import Server
from dspex.rpc.limits import Limits
from dspex.stores import MemoryStore

limits = Limits(commits=1e9, opens=1e9, sessions=1_000_000)
server = Server(MemoryStore(), f"unix://{sys.argv[1]}/counted", limits=limits).start()
print("ready", flush=True)
for line in sys.stdin:
    gc.collect()
    print(int(Path("/proc/self/statm").read_text().split()[1]) * 4096, flush=True)
"""

READER = """
import statistics, struct, sys, threading, time
import grpc
from dspex import Session
from dspex.rpc import RemoteStore

folder = sys.argv[1]
session = Session("route", store=RemoteStore(f"grpc+unix://{folder}/dspex"))
took = {"bare": [], "dspex": []}
session.watch("at", lambda change: took["dspex"].append(time.perf_counter() - change.value), mode="all")
channel = grpc.insecure_channel(f"unix:{folder}/bare")
def read():
    for data in channel.unary_stream("/bare/Events")(b"route"):
        took["bare"].append(time.perf_counter() - struct.unpack("d", data)[0])
threading.Thread(target=read, daemon=True).start()
print("ready", flush=True)
for line in sys.stdin:
    what, count = line.split()
    while len(took[what]) < int(count):
        time.sleep(0.001)
    middle = statistics.median(took[what][-int(count):])
    for samples in took.values():
        samples.clear()
    print(middle, flush=True)  # last: the next come at once
"""


class Process:
    """A script that answers lines with lines."""

    def __init__(self, source: str, folder: str) -> None:
        command = [sys.executable, "-c", source, folder]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.read() == "ready"

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


class Bench:
    """A server with both services, and what calls it."""

    def __init__(self, folder: str) -> None:
        self.server = Process(SERVER, folder)
        self.reader = Process(READER, folder)
        options = [("grpc.max_receive_message_length", 4 << 20), ("grpc.max_send_message_length", 4 << 20)]
        self.channel = grpc.insecure_channel(f"unix:{folder}/bare", options=options)
        self.unary = self.channel.unary_unary("/bare/Set")
        self.route = self.channel.unary_unary("/bare/Route")
        store = RemoteStore(f"grpc+unix://{folder}/dspex")
        self.push = Session("push", store=store)
        self.other = Session("route", store=store)
        self.alone = Session("alone", store=store)
        """One that nobody else watches."""
        self.alone.register("text", Text(), initial="")
        for number in range(64):
            self.alone.register(f"v{number}", Float(min=0.0), initial=0.0)

    def end(self) -> None:
        for session in (self.push, self.other, self.alone):
            session.close()
        self.channel.close()
        self.reader.end()
        self.server.end()


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


class Agent(Program):
    """A program bound to a session of the server."""

    v0 = defvariable(Float(min=0.0), initial=0.0)


class Plain:
    """One attribute."""

    def __init__(self) -> None:
        self.v0 = 0.0


def reading(on: Bench, rounds: int) -> Table:
    agent, bound, got = Agent.bind(on.alone), "dspex, a program bound to the server", "dspex, session.get"
    with Session() as here:
        here.register("v0", Float(min=0.0), initial=0.0)
        rows = [
            statement(PLAIN, "p.v0", p=Plain()),
            statement(AGAIN, "p.v0", p=Plain()),
            statement(bound, "p.v0", p=agent),
            statement(HERE, "s.get('v0')", s=here),
            statement(got, "s.get('v0')", s=on.alone),
        ]
        return measured(
            "remote read",
            "Read",
            rows,
            [Goal(bound, 1.05, PLAIN, "a plain attribute"), Goal(got, 1.05, HERE, "in process")],
            rounds=rounds,
        )


@contextmanager
def etcd() -> Iterator[Callable[[bytes], bytes] | None]:
    """A `Put` of etcd that does not wait for the disk, if etcd is here; its two messages are by hand."""
    if shutil.which("etcd") is None:
        yield None
        return
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        ports = []
        for _ in range(2):
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                ports.append(free.getsockname()[1])
        client, peer = (f"http://127.0.0.1:{port}" for port in ports)
        flags = {
            "data-dir": folder,
            "listen-client-urls": client,
            "advertise-client-urls": client,
            "listen-peer-urls": peer,
            "initial-advertise-peer-urls": peer,
            "initial-cluster": f"default={peer}",
        }
        command = ["etcd", "--unsafe-no-fsync", *(f"--{key}={value}" for key, value in flags.items())]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.kill)
        channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{ports[0]}"))
        put = channel.unary_unary("/etcdserverpb.KV/Put")

        def call(payload: bytes) -> bytes:
            answer: bytes = put(b"\x0a\x01k\x12" + bytes([len(payload)]) + payload, wait_for_ready=True)
            return answer

        call(PAYLOAD)
        yield call


def setting(on: Bench, rounds: int) -> Table:
    session, label, peer = on.alone, "dspex, session.set", "etcd, Put without fsync, loopback TCP"
    rows = [
        Row(UNARY, each(lambda _: on.unary(PAYLOAD))),
        Row(AGAIN, each(lambda _: on.unary(PAYLOAD))),
        Row(label, each(lambda number: session.set("v0", number / 7))),
    ]
    goals = [Goal(label, 0.75, UNARY, "a unary call")]
    with etcd() as put:
        if put is not None:
            rows.append(Row(peer, each(lambda _: put(PAYLOAD))))
            goals.append(Goal(label, 1.0, peer, "etcd"))
        return measured("remote set", "Set: one client", rows, goals, rounds=rounds)


def concurrent(on: Bench, rounds: int) -> Table:
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

    label = f"dspex, {THREADS} threads that set"
    rows = [
        Row(CALLERS, threads(lambda _: on.unary(PAYLOAD))),
        Row(AGAIN, threads(lambda _: on.unary(PAYLOAD))),
        Row(label, threads(lambda number: on.alone.set("v0", number / 7))),
    ]
    return measured(
        "remote threads",
        f"Set: {THREADS} threads, the time of each set",
        rows,
        [Goal(label, 0.85, CALLERS, "unary calls")],
        rounds=rounds,
    )


def batching(on: Bench, rounds: int) -> Table:
    session = on.alone

    def singles(number: int) -> None:
        for index in range(64):
            session.set(f"v{index}", number / 7)

    def batch(number: int) -> None:
        with session.batch():
            for index in range(64):
                session.set(f"v{index}", number / 7)

    rows = [
        Row(SINGLE, each(singles, 5)),
        Row("dspex, 64 sets in a batch()", each(batch, 20)),
        Row("dspex, update() of 64", each(lambda n: session.update({f"v{i}": n / 7 for i in range(64)}), 20)),
    ]
    return measured(
        "remote batch",
        "Set: 64 variables",
        rows,
        [Goal("dspex, 64 sets in a batch()", 0.04, SINGLE, "64 sets")],
        rounds=rounds,
    )


def large(on: Bench, rounds: int) -> Table:
    session, payload = on.alone, MEBIBYTE.encode()
    rows = [
        Row(LARGE, each(lambda _: on.unary(payload), 10)),
        Row(AGAIN, each(lambda _: on.unary(payload), 10)),
        Row("dspex, session.set of 1 MiB", each(lambda _: session.set("text", MEBIBYTE), 10)),
    ]
    return measured(
        "remote large",
        "Set: 1 MiB of text",
        rows,
        [Goal("dspex, session.set of 1 MiB", 1.2, LARGE, "a unary call")],
        rounds=rounds,
    )


def pushing(on: Bench, rounds: int) -> Iterator[Table]:
    import struct

    took: list[float] = []
    calls = [0]

    def told(at: float) -> None:
        took.append(time.perf_counter() - at)

    def bare() -> None:
        with suppress(grpc.RpcError):  # the end
            for data in on.channel.unary_stream("/bare/Events")(b"push"):
                at = struct.unpack("d", data)[0]
                for _ in range(calls[0]):
                    told(at)

    threading.Thread(target=bare, daemon=True).start()

    def run(what: str, watchers: int) -> Callable[[], float]:
        def once() -> float:
            watches = []
            calls[0] = 0
            if what == "dspex":
                watches = [
                    on.push.watch("at", lambda change: told(change.value), mode="all")
                    for _ in range(watchers)
                ]
            else:
                calls[0] = watchers
            took.clear()
            on.server.write(f"{what} {EVENTS}")
            while len(took) < EVENTS * watchers:
                time.sleep(0.002)
            calls[0] = 0
            for watch in watches:
                watch.close()
            # Of every event the last callback.
            return median(took[watchers - 1 :: watchers])

        return once

    time.sleep(0.2)
    yield measured(
        "remote push",
        "Push: a commit in the server's process to a callback in another",
        [
            Row(STREAM, run("bare", 1)),
            Row(AGAIN, run("bare", 1)),
            Row("dspex, commit to callback", run("dspex", 1)),
        ],
        [Goal("dspex, commit to callback", 1.15, STREAM, "a bare stream")],
        rounds=rounds,
    )
    yield measured(
        "remote fan",
        "Push: to the last of 100 watchers of one process",
        [
            Row(FAN, run("bare", 100)),
            Row(AGAIN, run("bare", 100)),
            Row("dspex, 100 watchers", run("dspex", 100)),
        ],
        [Goal("dspex, 100 watchers", 1.3, FAN, "1 stream and 100 callbacks")],
        rounds=rounds,
    )


def routing(on: Bench, rounds: int) -> Table:
    import struct

    def run(what: str, call: Callable[[float], Any]) -> Callable[[], float]:
        def once() -> float:
            for _ in range(EVENTS):
                call(time.perf_counter())
                time.sleep(0.002)
            on.reader.write(f"{what} {EVENTS}")
            return float(on.reader.read())

        return once

    def bare(at: float) -> None:
        on.route(struct.pack("d", at))

    label = "dspex, set here, callback there"
    rows = [
        Row(ROUTE, run("bare", bare)),
        Row(AGAIN, run("bare", bare)),
        Row(label, run("dspex", lambda at: on.other.set("at", at))),
    ]
    return measured(
        "remote route",
        "Set in one process to a callback in another",
        rows,
        [Goal(label, 1.15, ROUTE, "the same without dspex")],
        rounds=rounds,
    )


def holding(folder: str, rounds: int) -> Table:
    """What the open sessions of a server take, each declared and watched by a client."""
    declare = tuple(Declaration(f"v{number}", Float(min=0.0), 0.0) for number in range(VARIABLES))
    opened = f"dspex, {SESSIONS:,} open sessions of {VARIABLES} variables, each of them"
    used = "the same when every variable was set"
    samples: dict[str, list[float]] = {opened: [], used: []}
    for turn in range(rounds):
        server = Process(COUNTED, folder)
        url = f"grpc+unix://{folder}/counted"
        # One stream may watch a thousand sessions. What the first ones cost is not counted.
        stores = [RemoteStore(url, max_staleness=1e6 + 100 * turn + index) for index in range(12)]
        ledgers = []

        def fill(name: str, store: RemoteStore, ledgers: list[Any] = ledgers) -> None:
            ledger = store.open(name)
            ledger.commit(Commit(declare=declare))
            ledgers.append(ledger)

        def resident(server: Process = server) -> int:
            server.write("")
            return int(server.read())

        for number in range(500):
            fill(f"first-{number}", stores[-1])
        before = resident()
        for number in range(SESSIONS):
            fill(f"s-{number}", stores[number % 11])
        samples[opened].append((resident() - before) / SESSIONS)
        for number, ledger in enumerate(ledgers[500:]):
            writes = (Write(f"v{index}", number / 7 + index) for index in range(VARIABLES))
            ledger.commit(Commit(tuple(writes)))
        samples[used].append((resident() - before) / SESSIONS)
        for ledger in ledgers:
            ledger.close()
        for store in stores:
            store.close()
        server.end()
    goals = (Goal(opened, 4096), Goal(used, 4096))
    table = Table("remote sessions", "Memory of the server", samples, goals, size)
    print(f"### {table.title}\n\n{table}\n", flush=True)
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: seconds instead of minutes")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the tables into that page")
    options = parser.parse_args()
    about = machine(*PACKAGES)
    for key, value in about.items():
        print(f"- {key}: {value}")
    print()
    rounds = 7 if options.quick else 31
    with bench() as on:
        tables = [
            reading(on, rounds),
            setting(on, rounds),
            concurrent(on, rounds),
            batching(on, rounds),
            large(on, rounds),
            *pushing(on, rounds),
            routing(on, rounds),
        ]
    with tempfile.TemporaryDirectory() as folder:
        tables.append(holding(folder, 1))
    return finish(about, tables, json_file=options.json, docs=options.docs, check=options.check)


if __name__ == "__main__":
    raise SystemExit(main())

"""Readers that stand still, and many that come at once: who is slow hurts nobody."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest
from soak import LIMIT, often

from dspex import Integer, Session
from dspex.rpc.limits import Timers

pytestmark = pytest.mark.timeout(LIMIT)

NAMES = ("a", "b")
SLACK = 1.0
"""Seconds for a busy machine, whose threads do not run when they could."""


@pytest.fixture
def server(serving, request):
    """One that gives up readers who stand still only when a test says so."""
    seconds = getattr(request, "param", 1_000)
    return serving(timers=attrs.evolve(Timers().divided(20), stalled=seconds))


@pytest.fixture
def beneath(server):
    with Session("w", store=server.store) as session:
        for name in NAMES:
            session.register(name, Integer(), initial=0)
        yield session


READER = """
import math, sys
from dspex import Session
from dspex.rpc import RemoteStore
sessions = [
    Session("w", store=RemoteStore(sys.argv[1], max_staleness=1e6 + number))
    for number in range(int(sys.argv[2]))
]
print("ready", flush=True)
for line in sys.stdin:
    wanted = int(line)
    for session in sessions:
        for change in session.changes("a") if session.get("a") != wanted else ():
            if change.value == wanted:
                break
    print(min(session.revision.rev for session in sessions), flush=True)
"""


def test_stopped_readers_hurt_nobody(beneath, server, store):
    processes, each, sets = often((4, 1, 2_000), (10, 5, 100_000))
    """Of 50 watchers in 10 processes, those of one process are stopped."""
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READER, server.url, str(each)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(processes)
    ]
    stopped = readers[0]
    session = Session("w", store=store)

    def latencies(count):
        took = []
        for number in range(count):
            begin = time.perf_counter()
            session.set("a", number)
            took.append(time.perf_counter() - begin)
        return sorted(took)

    try:
        for reader in readers:
            assert reader.stdout.readline() == "ready\n"
        latencies(sets // 4)
        before = latencies(sets // 4)
        os.kill(stopped.pid, signal.SIGSTOP)
        size = _resident()
        begin = time.monotonic()
        during = latencies(sets // 2)
        big = "x" * 500
        for number in range(often(3_000, 6_000)):
            session.set("b", number, {"why": big})
        hub = _hub(server, "w")
        while time.monotonic() - begin < often(0, 30):
            session.set("b", 1)
        assert _resident() - size < max(3, each) * 8 * 1024 * 1024
        assert hub._size <= 1024 * 1024 + 4096
        assert all(len(outbox._out) <= len(NAMES) for outbox in hub.links)
        # Medians: what is compared is the work of the server, not the neighbours of this machine.
        assert during[len(during) // 2] <= 1.5 * before[len(before) // 2] + 0.0005
        session.set("a", -7)
        os.kill(stopped.pid, signal.SIGCONT)
        begin = time.monotonic()
        for reader in readers:
            reader.stdin.write("-7\n")
            reader.stdin.flush()
        for reader in readers:
            assert session.revision.rev == int(reader.stdout.readline())
        assert time.monotonic() - begin < 1 + 2 * SLACK
    finally:
        session.close()
        for reader in readers:
            os.kill(reader.pid, signal.SIGCONT)
            reader.kill()
            reader.communicate()


@pytest.mark.parametrize("server", [1.5], indirect=True)
def test_a_stream_that_takes_nothing_for_long_is_closed(beneath, server, eventually):
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, server.url, "1"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert reader.stdout.readline() == "ready\n"
        os.kill(reader.pid, signal.SIGSTOP)
        streams, big, number = server._calls.streams, "x" * 10_000, 0
        (outbox,) = streams
        while streams:
            number += 1
            rev = beneath.set("b", number, {"why": big}).rev  # more than a connection takes before it is full
            eventually(lambda r=rev: _hub(server, "w").rev == r, "the server has seen it")
            if outbox.began is not None and number > 1_000:
                eventually(lambda: not streams, "the end of the stream")
        beneath.set("a", -7)
        os.kill(reader.pid, signal.SIGCONT)
        reader.stdin.write("-7\n")
        reader.stdin.flush()
        assert beneath.revision.rev == int(reader.stdout.readline())
    finally:
        os.kill(reader.pid, signal.SIGCONT)
        reader.kill()
        reader.communicate()


def _hub(server, session):
    return server._calls.service.hubs[session]


def _resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


OPENS = """
import asyncio, sys
import grpc.aio
from dspex.rpc._generated import dspex_pb2 as pb

async def main(target, count):
    channels = [
        grpc.aio.insecure_channel(target, options=[("grpc.use_local_subchannel_pool", 1)]) for _ in range(4)
    ]
    request = pb.SubscribeRequest(session="w").SerializeToString()
    clock = asyncio.get_running_loop().time

    async def open(number):
        stream = channels[number % 4].unary_stream("/dspex.v1.Sessions/Subscribe")(request, timeout=60)
        first = pb.Down.FromString(await stream.read()).items[0]
        assert first.opened.start == pb.START_SNAPSHOT
        streams.append(stream)

    async def told(stream):
        while True:
            for item in pb.Down.FromString(await stream.read()).items:
                if item.WhichOneof("what") == "event":
                    return item.event.rev

    streams = []
    begin = clock()
    done = await asyncio.gather(*map(open, range(count)), return_exceptions=True)
    took = clock() - begin
    wrong = [str(one) for one in done if one is not None]
    print(len(streams), round(took, 2), wrong[:1], flush=True)
    sys.stdin.readline()
    print(sum(await asyncio.gather(*map(told, streams))), flush=True)
    for stream in streams:
        stream.cancel()
    for channel in channels:
        await channel.close()

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def test_two_thousand_watches_at_once(server, beneath):
    """With the limits of gRPC that a server has by itself, 226 of them are cancelled."""
    process = subprocess.Popen(
        [sys.executable, "-c", OPENS, server.listen.replace("unix://", "unix:"), "2000"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        opened, seconds, *wrong = process.stdout.readline().split(maxsplit=2)
        assert (opened, wrong) == ("2000", ["[]\n"])
        assert float(seconds) < 5 + 2 * SLACK
        beneath.set("a", 1)
        out, _ = process.communicate("\n", timeout=30)
        assert out == "2000\n"
    finally:
        process.kill()
        process.communicate()

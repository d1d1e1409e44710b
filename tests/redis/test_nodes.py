"""Several servers in front of one Redis: a client may use any of them, and go on at another."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from validators import check

import dspex

pytest.importorskip("grpc")

from dspex.rpc import RemoteStore, Server
from dspex.rpc.limits import Limits, Timers

TIMERS = Timers(deadline=10.0).divided(20)

NODE = """
import sys
from dspex.rpc import serve
from dspex.rpc.limits import Limits
serve(sys.argv[1], sys.argv[2], limits=Limits(commits=1e6), ready=lambda server: print("ready", flush=True))
"""


@pytest.fixture
def node(tmp_path):
    """Start nodes, each a process with a socket of its own."""
    started = []

    def start(url):
        folder = tmp_path / f"n{len(started)}"
        folder.mkdir(mode=0o700)
        process = subprocess.Popen(
            [sys.executable, "-c", NODE, url, f"unix://{folder}/s"],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(dspex.__file__).parents[1])},
        )
        started.append(process)
        assert process.stdout.readline() == "ready\n"
        process.path = f"{folder}/s"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        process.stdout.close()


@pytest.fixture
def remote():
    stores = []

    def connect(*paths):
        stores.append(RemoteStore(f"grpc+unix://{','.join(paths)}", timers=TIMERS, max_staleness=60))
        return stores[-1]

    yield connect
    for store in stores:
        link = store.link
        store.close()
        link.close()


def test_a_set_on_one_node_is_seen_through_the_other(own, node, remote, demo, eventually):
    server = own()
    first, second = node(server.url), node(server.url)
    here, there = demo(remote(first.path)), demo(remote(second.path))
    told = []
    there.watch("n", told.append)
    here.set("n", 1)
    eventually(lambda: [change.value for change in told] == [1], "the other heard")
    there.swap("n", lambda value: value + 1)
    eventually(lambda: here.get("n") == 2, "and the other way round")
    assert here.revision.epoch == there.revision.epoch


@pytest.mark.timeout(180)
def test_a_node_is_killed_under_load_and_its_clients_go_on_at_the_other_with_nothing_missed(
    own, node, remote, demo, eventually
):
    server = own()
    first, second = node(server.url), node(server.url)
    writer, watcher = demo(remote(second.path)), demo(remote(first.path, second.path))
    both = demo(remote(first.path, second.path))
    stream, truth = [], {}
    watcher.watch("*", stream.append, mode="all")
    for number in range(300):
        setter = both if number % 3 == 0 else writer
        change = setter.set("n", number)
        truth[change.epoch, change.rev] = {"n": (change.value, change.version)}
        if number == 100:
            first.send_signal(signal.SIGKILL)
    eventually(lambda: len(stream) == 300, "everything was told")
    check(stream, truth)
    assert watcher.get("n") == writer.get("n") == both.get("n") == 299
    assert len(truth) == writer.revision.rev == 300  # none was made twice


def test_clients_of_a_node_hear_that_the_history_is_another_one(own, remote, demo, tmp_path, eventually):
    server = own()
    folder = tmp_path / "in-process"
    folder.mkdir(mode=0o700)
    started = Server(
        f"{server.url}?deadline=2", f"unix://{folder}/s", timers=TIMERS, limits=Limits(commits=1e6)
    ).start()
    try:
        session = demo(remote(f"{folder}/s"))
        for number in range(5):
            session.set("n", number)
        told, epoch = [], session.revision.epoch
        session.watch("n", told.append)
        server.kill()
        server.start()
        eventually(lambda: session.revision.epoch != epoch, "another history")
        eventually(lambda: [change.value for change in told] == [0], "the initial value was told")
        eventually(lambda: _sets(session), "and it goes on")
    finally:
        started.stop(1)


def _sets(session):
    try:
        return session.set("n", 7)
    except dspex.DspexError:
        return False


def test_a_set_of_addresses_is_understood():
    from dspex.rpc.address import Address

    assert ("a:1", "[::1]:2") == Address.parse("grpc://a:1,[::1]:2").targets
    assert ("unix:/a", "unix:/b") == Address.parse("grpc+unix:///a,/b").targets
    for bad in ("grpc://a:1,", "grpc://a:1,b", "grpc+unix:///a,b", "grpc+unix://"):
        with pytest.raises(dspex.InvalidValue):
            Address.parse(bad)

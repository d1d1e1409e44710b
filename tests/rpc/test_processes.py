"""Servers and clients in processes of their own: forks, starts and ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import grpc

from dspex import Integer, MissingExtra, Session
from dspex.rpc import generate
from dspex.rpc.extra import SERVICE


def test_the_generated_code_is_of_the_version_that_is_promised():
    text = (generate.OUTPUT / "dspex_pb2.py").read_text()
    assert "Protobuf Python Version: 6.31.1" in text


def test_importing_dspex_imports_nothing_of_this(script):
    printed = script(
        "import sys, threading, dspex, dspex.rpc\n"
        "heavy = {'grpc', 'google.protobuf', 'dspex.rpc.client'}\n"
        "print(sorted(heavy & set(sys.modules)), threading.active_count())"
    )
    assert printed == "[] 1\n"


def test_without_grpc_the_extra_is_named(script, counted):
    printed = script(
        "import sys\n"
        "sys.modules['grpc'] = None\n"
        "from dspex import Session, MissingExtra\n"
        "try: Session('x', store='grpc+unix:///x')\n"
        "except MissingExtra as error: print(error)"
    )
    assert printed.startswith("gRPC stores and servers need ")
    assert "pip install 'dspex[grpc]'" in printed
    assert issubclass(MissingExtra, ImportError)


def test_health_says_whether_the_server_serves(serving):
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    server = serving()
    with grpc.insecure_channel(server.listen.replace("unix://", "unix:")) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for name in ("", SERVICE):
            answer = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


FORK = """
import os, sys, math
from dspex import Integer, Session
store = sys.argv[1]
session = Session("demo", store=store)
session.set("n", 1)
child = os.fork()
if child == 0:
    assert session.get("n") >= 1
    session.set("n", session.get("n") + 1)
    assert session.get("n") == 2, session.get("n")
    with Session("demo", store=store) as other:
        other.set("n", 3)
    assert session.get("n") == 3
    print("child", session.ledger.status, flush=True)
    os._exit(0)
print("parent sees", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
for number in range(10):
    session.set("a", number)
    assert session.get("a") == number, (session.get("a"), number)
assert session.get("n") == 3, session.get("n")
print("parent", session.ledger.status)
"""


def test_a_fork_has_a_connection_of_its_own(server, demo, script, counted):
    demo(server.store)
    assert script(FORK, server.url, deadline=40) == "child LIVE\nparent sees 0\nparent LIVE\n"


ENDING = """
import sys
from dspex import Session
session = Session("demo", store=sys.argv[1])
session.watch("n", lambda change: None)
session.set("n", 1)
print("done")
"""


def test_a_process_that_ends_with_open_sessions_ends_quietly(server, demo, script):
    demo(server.store)
    for _ in range(3):
        assert script(ENDING, server.url) == "done\n"


def test_serving_until_told_to_end(tmp_path):
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)
    source = (
        "import sys; from dspex.rpc import serve;"
        "serve(sys.argv[1], sys.argv[2], ready=lambda server: print(server.url, flush=True))"
    )
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", source, f"sqlite:///{tmp_path}/x.db", f"unix://{folder}/s"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        url = process.stdout.readline().strip()
        with Session("demo", store=url) as session:
            session.register("n", Integer(), initial=0)
            session.set("n", 7)
            process.send_signal(signal.SIGTERM)
            out, errors = process.communicate(timeout=20)
    finally:
        if process.returncode is None:
            process.kill()
            process.communicate()
    assert (process.returncode, out, errors) == (0, "", "")
    with Session("demo", store=f"sqlite:///{tmp_path}/x.db") as session:
        assert session.get("n") == 7

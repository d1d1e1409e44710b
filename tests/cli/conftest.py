"""The command line of the tests: in this process for breadth, in processes of their own for the rest."""

from __future__ import annotations

import json
import os
import pty
import queue
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("typer")

from typer.testing import CliRunner

import dspex
from dspex import Boolean, Choice, Float, ListOf, Prompt, Secret, Session, Text
from dspex.cli.app import app

ROOT = Path(dspex.__file__).parents[1]

CANARY = "sk-canary-0123456789"
"""The value of the secret variable: nobody may print it."""

DEADLINE = 60.0
"""Seconds within which a line must come that should come."""


def declare(session):
    """Give *session* a variable of every sort that the commands treat in a way of its own."""
    session.register("temperature", Float(min=0.0, max=1.5), initial=0.7)
    session.register("verbose", Boolean(), initial=False)
    session.register("style", Choice("brief", "1", 1, None), initial="brief")
    session.register("note", Text(), initial="")
    session.register("prompt", Prompt(), initial="Answer {question}.\nBe brief.")
    session.register("stops", ListOf(Text()), initial=())
    session.register("key", Secret(), initial=CANARY)


@pytest.fixture
def url(tmp_path):
    """A SQLite store with the session 'demo'."""
    url = f"sqlite:///{tmp_path}/x.db?durability=fast"
    with Session("demo", store=url, source="tests") as session:
        declare(session)
    return url


@pytest.fixture
def server(tmp_path):
    """A server in this process."""
    pytest.importorskip("grpc")
    from dspex.rpc import Server
    from dspex.stores import MemoryStore

    folder = tmp_path / "socket"
    folder.mkdir(mode=0o700)
    with Server(MemoryStore(), f"unix://{folder}/s") as serving:
        yield serving


@pytest.fixture
def served(server):
    """The session 'demo' of that server."""
    with Session("demo", store=server.store, source="tests") as session:
        declare(session)
        yield session


@pytest.fixture(autouse=True, scope="module")
def counted_commands(all_counted):
    """Have the commands that run in processes of their own count their lines."""


class Done:
    """What a command did."""

    def __init__(self, code, out, err):
        self.code, self.out, self.err = code, out, err

    @property
    def json(self):
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def refusal(self):
        (line,) = self.err.splitlines()
        return json.loads(line)["error"]


@pytest.fixture
def dspex_(url):
    """Run a command in this process, on the session 'demo' of the store: `dspex_("get", "note")`."""

    def run(*arguments, code=0, stdin=None, **environment):
        environment = {"DSPEX_STORE": url, "DSPEX_SESSION": "demo", "DSPEX_SOURCE": "ada", **environment}
        result = CliRunner().invoke(app, list(map(str, arguments)), input=stdin, env=environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert (result.exit_code, CANARY in result.output) == (code, False), result.output
        return Done(result.exit_code, result.stdout, result.stderr)

    return run


@pytest.fixture
def opened(url):
    """The session of the store, for a moment: between two commands, as only one at a time has the file."""

    def look(read):
        with Session("demo", store=url, source="tests") as session:
            return read(session)

    return look


class Running:
    """A process, and what it prints, line by line."""

    def __init__(self, arguments, **settings):
        self.process = subprocess.Popen(
            arguments, stdout=subprocess.PIPE, text=True, start_new_session=True, **settings
        )
        self._lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def line(self, deadline=DEADLINE):
        """The next line that it prints; None when it has ended."""
        try:
            return self._lines.get(timeout=deadline)
        except queue.Empty:
            raise AssertionError(f"{self.process.args} printed nothing for {deadline:g} s") from None

    def rest(self):
        """All other lines, until it ends."""
        return list(iter(self.line, None))

    def end(self, number=signal.SIGINT):
        """Send it a signal; give its exit code."""
        self.process.send_signal(number)
        return self.code()

    def code(self):
        return self.process.wait(DEADLINE)

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()


@pytest.fixture
def running():
    """Start processes; all are gone at the end."""
    started = []
    # Where Ctrl-C is ignored, as in what a shell has put into the background, processes inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    def start(*arguments, environment=None, **settings):
        where = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb", **(environment or {})}
        process = Running(list(map(str, arguments)), env=where, **settings)
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.close()
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def command(running):
    """Start the command line in a process of its own, its remarks among its answers."""

    def start(*arguments, strict=True, **settings):
        settings.setdefault("stderr", subprocess.STDOUT)
        warnings = ["-W", "error"] if strict else []
        return running(sys.executable, *warnings, "-m", "dspex", *arguments, **settings)

    return start


@pytest.fixture
def terminal():
    """Run a command on a terminal of its own, 100 columns wide; all that it prints until it ends."""

    def run(*arguments, cwd=None, **environment):
        ours, theirs = pty.openpty()
        where = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
        where |= {"TERM": "xterm", "COLUMNS": "100", "PYTHONPATH": str(ROOT), **environment}
        process = subprocess.Popen(
            [sys.executable, "-m", "dspex", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            cwd=cwd,
            env=where,
        )
        os.close(theirs)
        data = b""
        try:
            while more := os.read(ours, 65536):
                data += more
        except OSError:  # what Linux says when the other end is closed
            pass
        os.close(ours)
        process.wait(30)
        return data.decode()

    return run


# ---- studies ---------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path, monkeypatch, url):
    """A working directory with programs and examples; the session 'prod' has the variables of one."""
    shutil.copy(Path(__file__).with_name("shop.py"), tmp_path)
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"q": q, "answer": str(q)}) for q in range(4)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    from shop import Agent

    with Session("prod", store=url) as session:
        Agent.bind(session)
    yield tmp_path
    sys.modules.pop("shop", None)


@pytest.fixture
def search(dspex_, shop):
    """`dspex optimize` on the session 'prod'."""

    def run(*arguments, program="shop:Agent", **settings):
        settings = {"DSPEX_SESSION": "prod", **settings}
        asked = ("--data", "train.jsonl", "--metric", "shop:metric", *arguments)
        return dspex_("optimize", program, *asked, **settings)

    return run

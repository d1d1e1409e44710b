"""What the tests share."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from unittest import mock

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for interrupts

if threading.gettrace() is not None:
    # Lines are counted: each thread begins by installing a trace function, which CPython 3.11 refuses while
    # another one is at it. That takes no time, unless there is an audit hook in Python, as filelock has.
    with suppress(ImportError), mock.patch("sys.addaudithook"):
        import filelock  # noqa: F401

import dspex
from dspex import Float, Integer, Session, Text
from dspex.stores import MemoryStore

DEADLINE = 30.0
"""Seconds after which a condition that should come true is given up."""


@pytest.fixture
def eventually():
    """Wait until a condition is true, or fail and say which: `eventually(lambda: seen == [1], "1 seen")`."""

    def wait(condition, description, deadline=DEADLINE):
        end = time.monotonic() + deadline
        pause = threading.Event()
        while not condition():
            assert time.monotonic() < end, f"not within {deadline:g} s: {description}"
            pause.wait(0.001)

    return wait


@pytest.fixture
def together():
    """Run functions at the same moment, one thread each; give what they return, raise what they raise."""

    def run(*functions, deadline=55.0):
        barrier, begun = threading.Barrier(len(functions)), threading.Semaphore(0)
        results = [None] * len(functions)
        raised = []

        def work(index, function):
            begun.release()
            try:
                barrier.wait()
                results[index] = function()
            except BaseException as error:
                raised.append(error)

        threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(functions)]
        for thread in threads:
            thread.start()
            begun.acquire()  # CPython 3.11 cannot begin to trace two threads at once
        end = time.monotonic() + deadline
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))
        assert not any(thread.is_alive() for thread in threads), f"threads hang after {deadline:g} s"
        if raised:
            raise raised[0]
        return results

    return run


@pytest.fixture
def busy():
    """A context in which functions are called over and over, one thread each."""

    @contextmanager
    def calling(*functions):
        stop = threading.Event()
        raised = []

        def work(function):
            try:
                while not stop.is_set():
                    function()
            except BaseException as error:
                raised.append(error)

        threads = [threading.Thread(target=work, args=(one,), daemon=True) for one in functions]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(DEADLINE)
        assert not any(thread.is_alive() for thread in threads), "threads hang"
        if raised:
            raise raised[0]

    return calling


@pytest.fixture
def switching():
    """Threads take turns 500 times as often as usual, so that a race shows."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def store():
    """A store of the test's own."""
    return MemoryStore()


@pytest.fixture
def session(store):
    """The session 'demo' with `temperature`, `n`, `a`, `b` and `note`."""
    with Session("demo", store=store, source="tests") as opened:
        opened.register("temperature", Float(min=0.0, max=1.5), initial=0.7)
        for name in ("n", "a", "b"):
            opened.register(name, Integer(), initial=0)
        opened.register("note", Text(), initial="")
        yield opened


@pytest.fixture
def state():
    """All that a refusal must leave as it was: revision, records, history, tags, declarations."""

    def of(session):
        return (
            session.revision,
            dict(session.snapshot().records),
            list(session.history()),
            dict(session.tags),
            dict(session.variables),
        )

    return of


@pytest.fixture
def script(tmp_path):
    """Run Python source in a process of its own; give what it printed."""

    def run(source, *arguments, deadline=55):
        file = tmp_path / "script.py"
        file.write_text(source)
        command = [sys.executable, "-W", "error", str(file), *arguments]
        where = {**os.environ, "PYTHONPATH": str(Path(dspex.__file__).parents[1])}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=deadline, check=False, env=where
        )
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done.stdout

    return run


@contextmanager
def counting():
    here = sys.modules.get("coverage")
    running = None if here is None else here.Coverage.current()
    with pytest.MonkeyPatch.context() as patch:
        if running is not None:
            patch.setenv("COVERAGE_PROCESS_START", str(Path(__file__).with_name("coverage.ini")))
            patch.setenv("COVERAGE_FILE", str(Path(running.config.data_file).absolute()))
        yield


@pytest.fixture
def counted():
    """Have processes that the test starts count the lines that they run, if this process does."""
    with counting():
        yield


@pytest.fixture(scope="module")
def all_counted():
    """The same for all tests of a file."""
    with counting():
        yield

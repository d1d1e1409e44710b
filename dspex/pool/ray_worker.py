"""The actor of a `RayPool`: what a worker process is to the local pool. Needs no Ray to be imported."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from queue import Empty, SimpleQueue
from typing import Any

from dspex.pool import programs
from dspex.pool.channel import Say
from dspex.pool.failures import pack_failure, unpack_failure
from dspex.pool.running import Cancelled, Order, Running, resident, warm_up

__all__ = ["RayWorker"]

_interrupt = ctypes.pythonapi.PyThreadState_SetAsyncExc
"""Raises in another thread, at its next step of Python."""


class RayWorker:
    """Runs programs, one call at a time, and is a `Bridge` for what runs."""

    def __init__(self) -> None:
        self._running: Running | None = None
        self._name = ""
        self._outbox: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
        self._questions: dict[int, Future[Any]] = {}
        self._numbers = count(1)
        self._room = threading.Semaphore(0)
        self._streaming = 0
        self._thread = 0

    def begin(self, name: str, main: Any, names: list[str], environment: dict[str, str]) -> tuple[Any, ...]:
        """Import the programs and make them ready."""
        os.environ.update(environment)
        self._name = name
        where = f"worker {name} while it started"
        try:
            if main is not None and programs.of_main(names):
                programs.import_main(*main)
            loaded = {}
            for one in names:
                where = f"worker {name} while it imported {one}"
                loaded[one] = programs.load(one)
            for program in loaded.values():
                where = f"worker {name} in {program.__name__}.init()"
                warm_up(program)
        except Exception as error:
            return Say.BROKEN, pack_failure(error, where)
        self._running = Running(loaded, self)
        return Say.READY, os.getpid()

    def run(  # noqa: PLR0917 - Ray passes by position
        self,
        number: int,
        program: str,
        inputs: bytes,
        session: Any,
        left: float | None,
        pin: bool,
        window: int,
        carrier: dict[str, str] | None,
    ) -> Any:
        """Run one call; the answer of a stream goes the way of its pieces, so that it comes after them."""
        running = self._running
        assert running is not None
        self._streaming = number
        if window:
            self._room = threading.Semaphore(window)
        deadline = None if left is None else time.monotonic() + left
        me = threading.get_ident()
        try:
            self._thread = me
            data, rev = running.run(Order(number, program, inputs, session, deadline, pin, window, carrier))
            answer: tuple[Any, ...] = Say.DONE, number, data, rev, resident()
        except BaseException as error:
            failure = None if isinstance(error, Cancelled) else pack_failure(error, f"worker {self._name}")
            answer = Say.FAILED, number, failure, None, resident()
        _interrupt(ctypes.c_ulong(me), None)  # one that came too late
        if window:
            self._outbox.put(answer)
            return None
        return answer

    # ---- the bridge --------------------------------------------------------------------------------

    def chunk(self, number: int, data: bytes) -> None:
        """Send a piece when there is room."""
        while not self._room.acquire(timeout=0.05):  # an interruption comes between two tries
            pass
        self._outbox.put((Say.CHUNK, number, data))

    def ask(self, number: int, what: str, *details: Any) -> Any:
        """What the process that made the call answers."""
        question = next(self._numbers)
        answer: Future[Any] = Future()
        self._questions[question] = answer
        try:
            self._outbox.put((Say.ASK, number, question, what, details))
            while True:
                try:
                    return answer.result(0.05)
                except TimeoutError:
                    if answer.done():
                        raise
        finally:
            self._questions.pop(question, None)

    # ---- beside the calls --------------------------------------------------------------------------

    def outbox(self) -> list[tuple[Any, ...]]:
        """What there is to say, waiting for it."""
        found: list[tuple[Any, ...]] = []
        with suppress(Empty):
            found.append(self._outbox.get(timeout=10.0))
            while True:
                found.append(self._outbox.get_nowait())
        return found

    def ping(self) -> None:
        """It lives."""

    def cancel(self, number: int) -> None:
        """End the call of that number soon."""
        if self._running is not None:
            self._running.cancel(
                number, lambda: _interrupt(ctypes.c_ulong(self._thread), ctypes.py_object(Cancelled))
            )

    def more(self, number: int, pieces: int) -> None:
        """So many pieces were taken."""
        if number == self._streaming:
            for _ in range(pieces):
                self._room.release()

    def answer(self, question: int, value: bytes | None, failure: list[Any] | None) -> None:
        """The answer to a question."""
        waiting = self._questions.get(question)
        if waiting is None:
            return
        if failure is None:
            waiting.set_result(value)
        else:
            waiting.set_exception(unpack_failure(failure))

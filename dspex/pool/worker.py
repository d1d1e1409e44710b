"""
The main program of a worker process of the local pool.

The main thread takes a call, runs it and answers, with no other thread in between. A second one listens to
what must not wait: heartbeats, cancellations, answers to questions, and the end of the process that started
this one, on which the whole group of processes goes, with whatever the programs have started.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from typing import Any, NoReturn

from dspex import errors
from dspex.pool import programs
from dspex.pool.channel import Channel, Say
from dspex.pool.failures import pack_failure, unpack_failure
from dspex.pool.running import Cancelled, Order, Running, resident, warm_up

__all__ = ["main"]

INTERRUPT = getattr(signal, "SIGRTMIN", signal.SIGUSR2)
"""Has the main thread look whether its call is still wanted."""


class Terminated(SystemExit):
    """Raised by SIGTERM: it is this process that is to end, and not a program that ends itself."""


class Worker:
    """One worker process: a `Bridge` for what runs in it."""

    def __init__(self, calls: Channel, control: Channel, name: str) -> None:
        self.calls = calls
        self.control = control
        self.name = name
        self.running: Running | None = None
        self._questions: dict[int, Future[Any]] = {}
        self._numbers = count(1)
        self._room = threading.Semaphore(0)
        """Pieces that may be sent."""
        self._streaming = 0
        self._waiting: list[list[Any]] = []

    # ---- the bridge --------------------------------------------------------------------------------

    def chunk(self, number: int, data: bytes) -> None:
        self._room.acquire()
        self.calls.send(Say.CHUNK, number, data)

    def ask(self, number: int, what: str, *details: Any) -> Any:
        question = next(self._numbers)
        answer: Future[Any] = Future()
        self._questions[question] = answer
        try:
            self.calls.send(Say.ASK, number, question, what, details)
            return answer.result()
        finally:
            self._questions.pop(question, None)

    # ---- the thread that listens -------------------------------------------------------------------

    def listen(self) -> NoReturn:
        """Until the other end is gone; then this process and all that it started are."""
        main = threading.main_thread().ident
        assert main is not None
        while messages := self.control.receive():
            for say, *items in messages:
                if say == Say.PING:
                    self.control.send(Say.PONG, *items)
                elif say == Say.CANCEL:
                    assert self.running is not None
                    self.running.cancel(items[0], lambda: signal.pthread_kill(main, INTERRUPT))
                elif say == Say.MORE:
                    if items[0] == self._streaming:
                        for _ in range(items[1]):
                            self._room.release()
                elif say in (Say.ANSWER, Say.REFUSAL):
                    self._answered(say, *items)
        die()

    def _answered(self, say: int, question: int, answer: Any) -> None:
        waiting = self._questions.get(question)
        if waiting is None:
            return
        if say == Say.ANSWER:
            waiting.set_result(answer)
        else:
            waiting.set_exception(unpack_failure(answer))

    # ---- the main thread ---------------------------------------------------------------------------

    def begin(self) -> bool:
        """Import the programs, make ready what they need, and say so; False if that failed."""
        say, main, names, _ = self._next()
        assert say == Say.BEGIN
        where = f"worker {self.name} while it started"
        try:
            if main is not None and not programs.has_main():
                programs.import_main(*main)
            loaded = {}
            for name in names:
                where = f"worker {self.name} while it imported {name}"
                loaded[name] = programs.load(name)
            for program in loaded.values():
                where = f"worker {self.name} in {program.__name__}.init()"
                warm_up(program)
        except Exception as error:
            self.calls.send(Say.BROKEN, pack_failure(error, where))
            return False
        self.running = Running(loaded, self)
        signal.signal(INTERRUPT, self._interrupted)
        threading.Thread(target=self.listen, name="dspex-worker-control", daemon=True).start()
        self.calls.send(Say.READY, os.getpid())
        return True

    def _interrupted(self, *_: object) -> None:
        if self.running is not None and self.running.interrupted:
            raise Cancelled

    def _next(self) -> list[Any]:
        if not self._waiting:
            self._waiting = self.calls.receive()
            if not self._waiting:  # told to end, or nobody is there any more
                raise EOFError
        return self._waiting.pop(0)

    def serve(self) -> None:
        """Run one call after the other, until there is nobody to answer."""
        running = self.running
        assert running is not None
        try:
            while True:
                order = _order(self._next()[1:])
                self._one(running, order)
        except (EOFError, ConnectionError):
            running.close()

    def _one(self, running: Running, order: Order) -> None:
        self._streaming = order.number
        if order.window:
            self._room = threading.Semaphore(order.window)
        try:
            data, rev = running.run(order)
            answer: tuple[Any, ...] = Say.DONE, order.number, data, rev, resident()
        except Terminated:
            raise
        except BaseException as error:  # as if the channel were broken, perhaps: that is seen below
            answer = self._failed(order, error)
        try:
            self.calls.send(*answer)
        except errors.LimitExceeded as error:
            self.calls.send(*self._failed(order, error))

    def _failed(self, order: Order, error: BaseException) -> tuple[Any, ...]:
        failure = None if isinstance(error, Cancelled) else pack_failure(error, f"worker {self.name}")
        return Say.FAILED, order.number, failure, None, resident()


def _order(items: list[Any]) -> Order:
    number, program, inputs, session, deadline, pin, window, carrier = items
    if session is not None:
        address, *rest = session
        session = (tuple(address), *rest)
    return Order(number, program, inputs, session, deadline, pin, window, carrier)


def die() -> NoReturn:
    """End this process and every process of its group, now."""
    with suppress(OSError):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def hang_on(lifeline: int) -> None:
    """
    Have the kernel kill this group of processes when the other end of the pipe *lifeline* is closed.

    It needs no thread and no bytecode of this process, which may be stopped, or deep in somebody's C.
    """
    if hasattr(fcntl, "F_SETSIG"):
        fcntl.fcntl(lifeline, fcntl.F_SETOWN, -os.getpgrp())
        fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
    if select.select([lifeline], [], [], 0)[0]:  # closed before
        die()


def _terminated(*_: object) -> NoReturn:
    raise Terminated(128 + signal.SIGTERM)


def main(calls: int, control: int, lifeline: int, name: str) -> None:
    """
    Serve on the sockets of those numbers, as worker *name*.

    Ends with status 0 when the pool closes the channel of the calls.
    """
    hang_on(lifeline)
    signal.signal(signal.SIGTERM, _terminated)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that has the pool
    worker = Worker(Channel(socket.socket(fileno=calls)), Channel(socket.socket(fileno=control)), name)
    status = 1
    try:
        if worker.begin():
            worker.serve()
            status = 0
    except (EOFError, ConnectionError):
        pass
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)  # threads of libraries must not keep it

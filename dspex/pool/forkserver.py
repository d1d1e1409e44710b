"""
The main program of a fork server: a process that has imported what workers need, and forks them.

It has one thread and opens nothing, so that what it forks is as good as a fresh Python. It tells the process
with the pool the number of each worker, and later how that has ended, for it alone can know.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

import attrs

from dspex import errors
from dspex.pool import programs, worker
from dspex.pool.channel import Channel, Say
from dspex.pool.failures import pack_failure

__all__ = ["NUMBER", "main"]

NUMBER = struct.Struct("i")
"""What is told of a worker: its number, with a file that stands for it, or 0 if there is none; its status."""

ROOMS = ("dspex.pool.lending", "dspex.rpc.client")
"""What workers import besides, when they get their first session."""

SETTLING = 0.5
"""Seconds in which threads that a module has ended may disappear."""


@attrs.frozen
class Request:
    """A worker that is wanted: its name, and its files."""

    name: str
    calls: int
    control: int
    life: int
    told: socket.socket
    """Where the process with the pool hears of it."""

    def close(self) -> None:
        """Let go of what is the worker's alone."""
        for file in (self.calls, self.control, self.life):
            os.close(file)

    def refuse(self, error: BaseException, where: str) -> None:
        """Say in the place of the worker why there is none."""
        channel = Channel(socket.socket(fileno=self.calls))
        with suppress(OSError):
            channel.send(Say.BROKEN, pack_failure(error, where))
            self.told.send(NUMBER.pack(0))
        channel.close()
        os.close(self.control)
        os.close(self.life)
        self.told.close()


class Forking:
    """Forks workers for as long as there is who wants some, and waits for them."""

    def __init__(self, requests: socket.socket, lifeline: int) -> None:
        self._requests = requests
        self._lifeline = lifeline
        self._workers: dict[int, tuple[int, socket.socket]] = {}
        """Number, and where its end is to be told, by the file that is readable then."""

    def request(self) -> Request | None:
        """The next one, or None when there will be no more."""
        data, files, _, _ = socket.recv_fds(self._requests, 256, 4, socket.MSG_CMSG_CLOEXEC)
        if not files:
            return None
        calls, control, life, told = files
        return Request(data.decode(), calls, control, life, socket.socket(fileno=told))

    def serve(self) -> Request | None:
        """Returns its request in each worker; in the server None, when nothing is left to do."""
        ready = select.poll()
        ready.register(self._requests, select.POLLIN)
        listening = True
        while listening or self._workers:
            for file, _ in ready.poll():
                if file != self._requests.fileno():
                    ready.unregister(file)
                    self._ended(file)
                elif (request := self.request()) is None:
                    ready.unregister(file)
                    listening = False
                elif (forked := self._fork(request)) == 0:
                    return request
                elif forked is not None:
                    ready.register(forked, select.POLLIN)
        return None

    def _fork(self, request: Request) -> int | None:
        """The file that stands for the new worker; 0 in the worker; None if there is none."""
        try:
            number = os.fork()
        except OSError as error:
            request.refuse(error, f"the fork server, for worker {request.name}")
            return None
        if number == 0:
            os.setsid()
            self._leave()
            request.told.close()
            return 0
        file = os.pidfd_open(number)
        request.close()
        self._workers[file] = number, request.told
        with suppress(OSError):
            socket.send_fds(request.told, [NUMBER.pack(number)], [file])
        return file

    def _ended(self, file: int) -> None:
        number, told = self._workers.pop(file)
        os.close(file)
        with told, suppress(OSError):  # nobody listens any more, or a module has had children ignored
            status = os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])
            told.send(NUMBER.pack(status))

    def _leave(self) -> None:
        """In a worker: these files are the server's alone."""
        self._requests.close()
        os.close(self._lifeline)
        for file, (_, told) in self._workers.items():
            os.close(file)
            told.close()


# ---- what is imported ------------------------------------------------------------------------------------


def prepare(names: list[str], script: tuple[str, str] | None) -> tuple[Exception, str] | None:
    """Import all that workers need; what has failed, and where, if something has."""
    before = _sockets()
    where = "the fork server"
    try:
        for room in ROOMS:
            with suppress(ImportError):  # whoever needs it says so
                importlib.import_module(room)
        if script is not None:
            where = "the fork server while it imported the script"
            programs.import_main(*script)
            check("the script", before)
        for name in names:
            where = f"the fork server while it imported {name}"
            programs.load(name)
            check(name.partition(":")[0], before)
        if "dspex.modules.predictors" in sys.modules:  # DSPy, which they import when they are first made
            where = "the fork server while it imported DSPy"
            with suppress(ImportError):
                importlib.import_module("dspex.modules.dspy_bridge")
                importlib.import_module("dspex.lm")
                check("dspy", before)
    except Exception as error:
        return error, where
    return None


def check(module: str, before: set[str]) -> None:
    """
    See that a fork of this process is as good as a fresh one, after *module* was imported.

    Raises:
        ForkUnsafe: It is not.
    """
    threads, sockets = _threads(), sorted(_sockets() - before)
    if not (threads or sockets):
        return
    what = [f"started {_counted(threads, 'thread')} ({errors.listed(threads)})"] if threads else []
    if sockets:
        what.append(f"opened {_counted(sockets, 'socket')}")
    raise errors.ForkUnsafe(
        f"importing {module} has {' and '.join(what)}: a process that has such cannot be forked safely. Do "
        'that in init(), which each worker runs, or make the pool with start_method="spawn".',
        module=module,
        threads=threads,
        sockets=len(sockets),
    )


def _counted(found: list[str], noun: str) -> str:
    return f"{len(found)} {noun}{'s' * (len(found) > 1)}"


def _tasks() -> dict[int, str]:
    """The names of the threads, by their numbers."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found[int(task.name)] = (task / "comm").read_text().strip()
    return found


def _threads() -> list[str]:
    """The names of the threads, besides this one, that not even a fork ends."""
    end = time.monotonic() + SETTLING
    while len(found := _tasks()) > 1:
        number = os.fork()  # those that let themselves be ended for a fork, as OpenBLAS's, are ended by one
        while number == 0:
            signal.pause()
        os.kill(number, signal.SIGKILL)
        os.waitpid(number, 0)
        if len(found := _tasks()) > 1 and time.monotonic() > end:
            break
        time.sleep(0.01)
    known = {one.native_id: one.name for one in threading.enumerate()}
    return sorted(known.get(number, name) for number, name in found.items() if number != os.getpid())


def _sockets() -> set[str]:
    found = set()
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            found.add(str(file.readlink()))
    return {name for name in found if name.startswith("socket:")}


# ---- the process -----------------------------------------------------------------------------------------


def main(requests: int, lifeline: int, names: list[str], script: tuple[str, str] | None) -> None:
    """
    Fork workers that run the programs *names* for who asks on the socket *requests*.

    Returns never: ends with status 0 when nobody will ask any more and all workers have ended, and goes on
    as `worker.main` in each of them.
    """
    worker.hang_on(lifeline)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    server = Forking(socket.socket(fileno=requests), lifeline)
    os.set_inheritable(requests, False)  # for what a module may start when it is imported
    os.set_inheritable(lifeline, False)
    failed = prepare(names, script)
    if failed is not None:
        _refuse(server, *failed)
    gc.collect()
    gc.freeze()  # what is here will stay, and is shared for as long as no worker's collector touches it
    _flush()  # else it would be written once more by each
    request = server.serve()
    if request is None:
        os._exit(0)
    _seed()
    worker.main(request.calls, request.control, request.life, request.name)


def _refuse(server: Forking, error: Exception, where: str) -> NoReturn:
    """Say why there will be no worker, to whoever asks before another server is there."""
    while (request := server.request()) is not None:
        request.refuse(error, where)
    _flush()
    os._exit(1)


def _seed() -> None:
    """Have NumPy's own generator differ from worker to worker, as `random` sees to itself."""
    random = sys.modules.get("numpy.random")
    if random is not None:
        random.seed()


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()

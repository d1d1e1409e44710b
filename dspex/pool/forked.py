"""Workers that a fork server has forked, and the fork servers of a pool."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from typing import Any

from dspex import errors
from dspex.locks import OwnedLock
from dspex.pool import programs
from dspex.pool.ending import Ending
from dspex.pool.forkserver import NUMBER
from dspex.pool.members import Slot
from dspex.pool.process import Process, environment, python
from dspex.pool.readiness import Readiness
from dspex.pool.settings import Settings

__all__ = ["ForkServers", "Forked"]

BOOT = (
    "import sys; sys.path[:] = {path!r}; from dspex.pool.forkserver import main; "
    "main({requests}, {life}, {names!r}, {script!r})"
)

WORD = 1.0
"""Seconds in which a fork server tells how a worker has ended. It takes less than one thousandth."""


class ForkServer:
    """One fork server, from outside."""

    def __init__(self, settings: Settings, names: list[str]) -> None:
        self.finds = _surroundings(settings)
        self.refused = False
        """Whether it cannot fork workers, and has said why."""
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._requests.setblocking(False)
        life, self._lifeline = os.pipe()
        code = BOOT.format(
            path=sys.path,
            requests=theirs.fileno(),
            life=life,
            names=names,
            script=programs.main_script() if programs.of_main(names) else None,
        )
        try:
            self._process = python(code, [theirs.fileno(), life], environment(settings))
        except BaseException:
            self.abandon()
            raise
        finally:
            theirs.close()
            os.close(life)

    def fork(self, name: str, files: list[int]) -> None:
        """
        Have it fork the worker *name*, which gets *files*.

        Raises:
            OSError: It has ended, or has not yet come to too many of those that were asked for before.
        """
        socket.send_fds(self._requests, [name.encode()], files)

    def ending(self, seconds: float = 0.0) -> Ending | None:
        """How it has ended, if it does within so many *seconds*."""
        try:
            return Ending(self._process.wait(seconds))
        except subprocess.TimeoutExpired:
            return None

    def retire(self) -> None:
        """Have it fork no more, and end when its workers have."""
        self._requests.close()

    def kill(self) -> None:
        """End it now. The workers stay."""
        if self.ending() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """End it; its workers have ended."""
        self.retire()
        if self.ending(WORD) is None:
            self.kill()
            self._process.wait()
        self.abandon()

    def abandon(self) -> None:
        """Let go of the files."""
        self._requests.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


class ForkServers:
    """
    The fork server of a pool, and those before it whose workers have not ended.

    Raises:
        ForkUnsafe: There is none on this system.
    """

    def __init__(self, settings: Settings, names: list[str]) -> None:
        _check_system()
        self._settings = settings
        self._names = names
        self._server: ForkServer | None = None
        self._former: list[ForkServer] = []

    def fork(self, slot: Slot, readiness: Readiness) -> Forked:
        """Have a worker forked for *slot*; raises what the system raises."""
        return Forked(slot, self._settings, self._names, readiness, self._current())

    def _current(self) -> ForkServer:
        """One that lives, and has found what a fresh Python would find."""
        for former in [one for one in self._former if one.ending() is not None]:
            self._former.remove(former)
            former.close()
        server = self._server
        if server is not None:
            if (
                not server.refused
                and server.ending() is None
                and server.finds == _surroundings(self._settings)
            ):
                return server
            server.retire()
            self._former.append(server)
            self._server = None
        self._server = ForkServer(self._settings, self._names)
        return self._server

    @property
    def _all(self) -> list[ForkServer]:
        return [*self._former, *([] if self._server is None else [self._server])]

    def close(self) -> None:
        """End them; all workers have ended."""
        for server in self._all:
            server.close()

    def abandon(self) -> None:
        """Let go of the files."""
        for server in self._all:
            server.abandon()


class Forked(Process):
    """
    A worker that is no child of this process: its fork server waits for it, and says how it has ended.

    Its number may be somebody else's as soon as it has ended. So it is known by a file that stands for it,
    and its group by the pipe at whose end the kernel kills that. This process keeps both ends of the pipe, or
    the kernel would forget the group with the worker.
    """

    def __init__(
        self, slot: Slot, settings: Settings, names: list[str], readiness: Readiness, server: ForkServer
    ) -> None:
        self._server = server
        self._lock = OwnedLock()
        """Held while the files are used or closed that say which processes are meant."""
        self._over = False
        self._life: int | None = None
        self._told: socket.socket | None = None
        self._file: int | None = None
        """Stands for the process, once there is one."""
        super().__init__(slot, settings, names, readiness)

    def _start(self, settings: Settings, given: list[int]) -> int | None:
        self._life = os.dup(given[2])
        self._told, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._told.settimeout(WORD)
        with theirs:
            self._server.fork(self.name, [*given, theirs.fileno()])
        return self._told.fileno()  # where the first that is to be heard is that there is a process

    # ---- the verbs of a member ---------------------------------------------------------------------

    def kill(self, *, now: bool) -> None:
        with self._lock:
            if self._over:
                return
            with suppress(OSError):
                self.work.socket.shutdown(socket.SHUT_RD)
            if self._file is not None:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(self._file, signal.SIGKILL if now else signal.SIGTERM)
            elif now:
                self._server.kill()  # it has not come to it, whatever keeps it
            if now or self._file is None:
                self._let_go()

    def _let_go(self) -> None:
        """Have the kernel kill the group, or the worker itself as soon as it looks."""
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1

    # ---- the end -----------------------------------------------------------------------------------

    def ended(self) -> Ending | None:
        if self._file is None:
            return self._begun()
        lives = select.poll()
        lives.register(self._file, select.POLLIN)
        if not lives.poll(0):
            return None
        self.kill(now=True)  # what it has started
        data, _ = self._hear()
        return Ending(NUMBER.unpack(data)[0] if data else None)

    def _begun(self) -> Ending | None:
        """Take what the fork server says of the start; how that has ended, if there is no worker."""
        data, files = self._hear()
        if not data:  # it has ended, or does so just now
            ending = self._server.ending(WORD) or Ending(None)
            self.why = self.why or f"its fork server {ending}"
            return ending
        if not files:  # why not is on the channel of the calls
            self._server.refused = True
            return Ending(1)
        assert self.exit is not None
        with self._lock:
            (self.pid,) = NUMBER.unpack(data)
            (self._file,) = files
            self._readiness.replace(self.exit, self._file)
            self.exit = self._file
        return None

    def _hear(self) -> tuple[bytes, list[int]]:
        assert self._told is not None
        try:
            data, files, _, _ = socket.recv_fds(self._told, NUMBER.size, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError:
            return b"", []
        return data, files

    def close(self) -> None:
        with self._lock:
            self._over = True
            self._let_go()
            self.work.close()
            self.control.close()
            if self._told is not None:
                self._told.close()
            for file in (self._life, self._file):
                if file is not None:
                    os.close(file)
            self._life = self._file = self.exit = None


def _surroundings(settings: Settings) -> tuple[Any, ...]:
    """What a fresh Python finds when it is started by this process."""
    return environment(settings), list(sys.path), _identity("."), _identity(1), _identity(2)


def _identity(file: str | int) -> tuple[int, int] | None:
    try:
        found = os.stat(file)  # noqa: PTH116 - a path has no number
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _check_system() -> None:
    if hasattr(os, "pidfd_open") and hasattr(fcntl, "F_SETSIG"):
        with suppress(OSError):  # an older kernel than Python was made for
            os.close(os.pidfd_open(os.getpid()))
            return
    raise errors.ForkUnsafe(
        f'start_method="forkserver" needs Linux, with pidfd_open (this is {sys.platform}). Use "spawn".'
    )

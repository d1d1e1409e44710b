"""The local pool: worker processes of this machine, over pipes."""

from __future__ import annotations

import atexit
import socket
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.pool import programs
from dspex.pool.abandoning import pools
from dspex.pool.base import BasePool
from dspex.pool.calls import Call
from dspex.pool.channel import Say
from dspex.pool.failures import unpack_failure
from dspex.pool.members import Member, Slot, State
from dspex.pool.process import Process
from dspex.pool.readiness import Readiness

if TYPE_CHECKING:
    from dspex.pool.forked import ForkServers

__all__ = ["Pool"]

POLL = 0.01
"""
Seconds between two looks at a process that closed its sockets, where the system does not tell of its end.
"""

FORKED = "forkserver"
METHODS = ("spawn", FORKED)


class Pool(BasePool):
    """
    Worker processes of this machine that run programs.

        with Pool([ResearchAgent], workers=2) as pool:
            ResearchAgent.run("What is OTP?", session=session, pool=pool)

    Args:
        programs: The `Program` classes that workers may run, or their names, `package.module:Class`. Workers
            import them: a script that makes a pool does so under `if __name__ == "__main__":`.
        start_method: `spawn`: each worker is a Python of its own, by nobody's fork. `forkserver`: a process
            that does nothing else imports the programs once, and forks the workers.
        settings: Those of `Settings`, by name: `workers`, `spares`, `affinity`, `queue`, `timeout` and
        others.

    Workers are started at once. When this process ends, however it does, they end with all that they have
    started.
    """

    def __init__(self, programs: Any, *, start_method: str = "spawn", **settings: Any) -> None:
        _check_not_starting()
        _check_method(start_method)
        super().__init__(programs, **settings)
        self._forks: ForkServers | None = None
        if start_method == FORKED:
            from dspex.pool.forked import ForkServers

            self._forks = ForkServers(self.settings, list(self.programs))
        self._readiness = Readiness()
        self._bell, self._rung = socket.socketpair()
        self._bell.setblocking(False)
        self._rung.setblocking(False)
        self._readiness.add(self._rung.fileno(), self._hear)
        pools.add(self)
        self._thread.start()

    # ---- what the scheduler asks -------------------------------------------------------------------

    def _launch(self, slot: Slot) -> Member:
        if self._forks is None:
            member = Process(slot, self.settings, list(self.programs), self._readiness)
        else:
            member = self._forks.fork(slot, self._readiness)
        self._readiness.add(member.work.fileno(), lambda: self._of_work(member))
        self._readiness.add(member.control.fileno(), lambda: self._of_control(member))
        if member.exit is not None:
            self._readiness.add(member.exit, lambda: self._of_exit(member))
        return member

    def _poke(self) -> None:
        with suppress(OSError):  # full is as good
            self._bell.send(b"!")

    def _hear(self) -> None:
        with suppress(BlockingIOError):
            self._rung.recv(4096)

    def _wait(self, seconds: float) -> None:
        self._readiness.wait(seconds)

    def _release(self) -> None:
        self._readiness.close()
        self._bell.close()
        self._rung.close()
        self._lender.close()
        if self._forks is not None:
            self._forks.close()

    def _attend(self, call: Call, timeout: float | None) -> None:
        """Read in this thread, which waits for *call*, what its worker says: two changes of threads less."""
        member = call.member
        if not (isinstance(member, Process) and self._readiness.yields):
            return
        if not member.reading.acquire(blocking=False):
            member.listened(attended=False)  # another thread reads just now, and may stop before it comes
            return
        end = None if timeout is None else time.monotonic() + timeout
        alive = True
        try:
            member.listened(attended=True)
            while (
                alive and member.call is call and not call.done() and (end is None or time.monotonic() < end)
            ):
                alive = self._read(member)
        except (OSError, ValueError):  # closed by the thread, just now
            return
        finally:
            member.reading.release()
            if member.call is not None or not alive:
                member.listened(attended=False)

    def abandon(self) -> None:
        super().abandon()
        for member in self._members():
            assert isinstance(member, Process)
            member.close()
        if self._forks is not None:
            self._forks.abandon()

    # ---- what comes --------------------------------------------------------------------------------

    def _of_work(self, member: Process) -> None:
        if member.reading.acquire(blocking=False):
            try:
                alive = self._read(member)
            finally:
                member.reading.release()
            if not alive:
                self._hung_up(member)

    def _read(self, member: Process) -> bool:
        """Take what *member* has said of its calls; whether there may come more."""
        messages, alive = member.work.poll()
        for say, *items in messages:
            if say == Say.READY:
                self._ready(member, *items)
            elif say == Say.BROKEN:
                member.failure = unpack_failure(items[0])
            else:
                self.heard(member, say, *items)
        return alive

    def _of_control(self, member: Process) -> None:
        messages, alive = member.control.poll()
        for say, *_ in messages:
            if say == Say.PONG:
                member.pings = 0
        if not alive:
            self._readiness.remove(member.control.fileno())

    def _hung_up(self, member: Process) -> None:
        """It has closed its end: so it has ended, or is about to."""
        self._readiness.remove(member.work.fileno())
        if member.exit is None:
            self._look(member)

    def _look(self, member: Process) -> None:
        if member.ended() is not None:
            self._of_exit(member)
        else:
            with self._lock:
                self._at(time.monotonic() + POLL, lambda: self._look(member))

    def _of_exit(self, member: Process) -> None:
        ending = member.ended()
        if ending is None or member.state is State.GONE:
            return
        with member.reading:  # whoever reads there finds the end
            self._read(member)  # what it has said last
            for file in (member.work.fileno(), member.control.fileno(), member.exit):
                if file is not None:
                    self._readiness.remove(file)
            member.close()
        self._gone(member, str(ending), **ending.facts)


def _check_not_starting() -> None:
    if getattr(sys.modules.get("__main__"), "__name__", "") == programs.MAIN:
        raise errors.InvalidDeclaration(
            "a pool is made while a worker imports the script that makes it. Put that line under "
            'if __name__ == "__main__":',
        )


def _check_method(method: str) -> None:
    if method not in METHODS:
        raise errors.InvalidValue.expecting(
            f"one of {errors.listed(METHODS)}{errors.did_you_mean(method, METHODS)}",
            errors.shown(method, 60),
        ).at("start_method")


@atexit.register
def _close_all() -> None:
    for pool in list(pools):
        if isinstance(pool, Pool):
            pool.close()

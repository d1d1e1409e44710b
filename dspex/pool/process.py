"""A worker process, from outside: started, spoken to, ended with all that it has started."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any

from dspex.pool import programs
from dspex.pool.calls import Call
from dspex.pool.channel import Channel, Say
from dspex.pool.ending import Ending
from dspex.pool.members import Member, Slot
from dspex.pool.readiness import Readiness
from dspex.pool.settings import Settings

__all__ = ["Process", "environment", "python"]

LIBRARIES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "RAYON_NUM_THREADS",
    "DSPEX_THREADS",
)
"""What numeric libraries, tokenizers and `dspex.lm` read when they choose how many threads to have."""

BOOT = (
    "import sys; sys.path[:] = {path!r}; from dspex.pool.worker import main; "
    "main({calls}, {control}, {life}, {name!r})"
)


LOOK = struct.pack("ll", 0, 20_000)
"""Seconds and microseconds after which whoever waits for a worker looks whether that is still of use."""


class Process(Member):
    """
    A fresh Python of its own session and process group.

    It has two sockets: one for calls and what becomes of them, read only by the thread that runs them, and
    one for what must not wait. The third file is a pipe in which nothing is ever written: when this process
    ends, in whatever way, the kernel closes its end and kills the group of the worker.
    """

    def __init__(self, slot: Slot, settings: Settings, names: list[str], readiness: Readiness) -> None:
        super().__init__(slot)
        self._readiness = readiness
        self.reading = threading.Lock()
        """Held by the thread that reads what it says of its calls."""
        self._listening = threading.Lock()
        self.quiet = False
        """Whether the thread of the pool does not look there: somebody who waits does."""
        mine, calls = socket.socketpair()
        mine_too, control = socket.socketpair()
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, LOOK)
        for end in (mine, mine_too):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _patience(settings))
        life, self._lifeline = os.pipe()
        self.work, self.control = Channel(mine), Channel(mine_too)
        given = [calls.fileno(), control.fileno(), life]
        self.exit: int | None = None
        """Becomes readable when the process has ended, where the system has such files."""
        try:
            self.exit = self._start(settings, given)
        except BaseException:
            self.close()
            raise
        finally:
            calls.close()
            control.close()
            os.close(life)
        with suppress(OSError):
            self.work.send(Say.BEGIN, programs.main_script() if programs.of_main(names) else None, names, {})

    def _start(self, settings: Settings, given: list[int]) -> int | None:
        """Start the process, which gets the files *given*; returns `exit`."""
        calls, control, life = given
        code = BOOT.format(path=sys.path, calls=calls, control=control, life=life, name=self.name)
        self._process = python(code, given, environment(settings))
        self.pid = self._process.pid
        return os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None

    # ---- the verbs of a member ---------------------------------------------------------------------

    def listened(self, *, attended: bool) -> None:
        """Whether somebody who waits will read what it says."""
        with self._listening:
            if self.quiet is not attended:
                self.quiet = attended
                change = self._readiness.quieten if attended else self._readiness.wake
                change(self.work.fileno())

    def send(self, call: Call) -> None:
        self.listened(attended=call.attended)
        reference = call.reference
        self._say(
            self.work,
            Say.CALL,
            call.number,
            call.program,
            call.inputs,
            reference,
            call.deadline,
            call.pin,
            call.window,
            call.carrier,
        )

    def cancel(self, call: Call) -> None:
        self.listened(attended=False)  # its caller has gone, perhaps
        self._say(self.control, Say.CANCEL, call.number)

    def more(self, call: Call, pieces: int) -> None:
        self._say(self.control, Say.MORE, call.number, pieces)

    def answer(self, question: Any, *, value: bytes | None = None, failure: list[Any] | None = None) -> None:
        if failure is None:
            self._say(self.control, Say.ANSWER, question, value)
        else:
            self._say(self.control, Say.REFUSAL, question, failure)

    def ping(self) -> None:
        self._say(self.control, Say.PING, self.pings)

    def leave(self) -> None:
        with suppress(OSError):
            self.work.socket.shutdown(socket.SHUT_WR)

    def kill(self, *, now: bool) -> None:
        # A process that was not waited for keeps its number, and a group that of its leader.
        if self._process.returncode is not None:
            return
        with suppress(ProcessLookupError, PermissionError):
            with suppress(OSError):
                self.work.socket.shutdown(socket.SHUT_RD)  # whoever waits for it need not wait for its end
            if now:
                os.killpg(self.pid, signal.SIGKILL)
            else:
                os.kill(self.pid, signal.SIGTERM)

    def _say(self, channel: Channel, *message: Any) -> None:
        try:
            channel.send(*message)
        except BlockingIOError:  # half of it may be said, so nothing else can be
            self.why = self.why or "it takes no more of what it is sent"
            self.kill(now=True)
        except OSError:  # it is gone; the pool hears of it in another way
            return

    # ---- the end -----------------------------------------------------------------------------------

    def ended(self) -> Ending | None:
        """How it has ended, if it has. Its group is no more."""
        if self._process.returncode is None:
            if os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
                return None
            self.kill(
                now=True
            )  # what it has started; it is not waited for yet, so the number is still its own
        return Ending(self._process.wait())

    def close(self) -> None:
        """Let go of the files."""
        self.work.close()
        self.control.close()
        os.close(self._lifeline)
        if self.exit is not None:
            os.close(self.exit)
            self.exit = None


def python(code: str, files: list[int], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Run *code* in a fresh Python that leads a session of its own and has *files* by their numbers here."""
    return subprocess.Popen(  # noqa: S603 - this Python, and our own code
        [sys.executable, *subprocess._args_from_interpreter_flags(), "-c", code],  # type: ignore[attr-defined]
        pass_fds=files,
        stdin=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )


def _patience(settings: Settings) -> bytes:
    """How long a worker may take nothing of what it is sent: as long as it may not answer heartbeats."""
    seconds, rest = divmod(min(settings.heartbeat * settings.misses, 1e6), 1)
    return struct.pack("ll", int(seconds), max(1, int(rest * 1e6)))


def environment(settings: Settings) -> dict[str, str]:
    """What a worker finds in `os.environ`."""
    threads = str(settings.threads_each)
    chosen = {name: threads for name in LIBRARIES if settings.threads is not None or name not in os.environ}
    return {**os.environ, **chosen, **settings.environment}

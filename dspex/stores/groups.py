"""Work that takes turns: who finds nobody at it does it, for all who wait meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice, takewhile
from typing import Any, Generic, TypeVar

__all__ = ["Job", "Turns"]

GROUP = 256
"""Jobs that are done together at most."""


class Job:
    """Something that one caller waits for."""

    __slots__ = ("error", "gate")

    alone = False
    """Whether it cannot share its turn."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        """Why it was not done."""
        self.gate: threading.Lock | None = None
        """Opened when it is done, or when its caller is to lead."""

    @property
    def over(self) -> bool:
        """Whether it was done, or has failed."""
        return self.error is not None


J = TypeVar("J", bound=Job)
T = TypeVar("T")


class Turns(Generic[J]):
    """
    Lets one caller at a time do the work of all.

    The first becomes the leader and works in its own thread: with one caller there is no hand-off at all.
    Those that come meanwhile wait; when the leader is done, one of them leads and does all that has queued.
    """

    # A signal may raise after any call. So a turn is taken where it is sure to be given back, and to give it
    # back a second time does what was left of the first. A job waits in the queue until it is over: the next
    # leader does what the last one was kept from. And garbage may be collected anywhere, which takes turns
    # too: the lock is re-entrant, and nothing is allocated between finding a turn free and taking it.

    def __init__(self, work: Callable[[list[J]], object]) -> None:
        self._work = work
        self._mutex = threading.RLock()
        self._turn: object = None
        """The job whose caller is at work, or what stands for one."""
        self._waiting: deque[J] = deque()

    def do(self, job: J) -> None:
        """Return when *job* is done, by this thread or by another; then look at `job.error`."""
        try:
            with self._mutex:
                if self._turn is None:
                    self._turn = job
                else:
                    job.gate = threading.Lock()
                    job.gate.acquire()
                    self._waiting.append(job)
            if job.gate is not None:
                job.gate.acquire()
            if self._turn is job:
                self._work([job] if job.gate is None else self._group())
                self._pass_on(job)
        except BaseException:
            self._pass_on(job)
            raise

    def at_once(self, work: Callable[..., T], *arguments: Any) -> T | None:
        """What *work* returns, done in a turn of its own; None if somebody is at work."""
        turn = object()
        result = None
        try:
            with self._mutex:
                if self._turn is None:
                    self._turn = turn
            if self._turn is turn:
                result = work(*arguments)
                self._pass_on(turn)
        except BaseException:
            self._pass_on(turn)
            raise
        return result

    def do_at_once(self, job: J) -> bool:
        """Do *job* if nobody is at work; whether it was done."""
        self.at_once(self._work, [job])
        return job.over

    def _group(self) -> list[J]:
        with self._mutex:
            first, *others = islice(self._waiting, GROUP)
            return [first, *(() if first.alone else takewhile(_shares, others))]

    def _pass_on(self, turn: Any) -> None:
        """Give *turn* to who waits for one; or the place in the queue, of which nobody waits for the end."""
        with self._mutex:
            if self._turn is not turn:
                with suppress(ValueError):
                    self._waiting.remove(turn)
                return
            while self._waiting and ((job := self._waiting[0]) is turn or job.over):
                _open(job)
                self._waiting.popleft()
            # The heir last: until it runs, those that are done may have queued what they do next.
            heir = self._waiting[0] if self._waiting else None
            self._turn = heir
            if heir is not None:
                _open(heir)


def _shares(job: Job) -> bool:
    return not job.alone


def _open(job: Job) -> None:
    assert job.gate is not None
    with suppress(RuntimeError):  # it is open
        job.gate.release()

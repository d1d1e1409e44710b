"""Work that takes turns: who finds nobody at it does it, for all who wait meanwhile."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

__all__ = ["Job", "Turns"]

GROUP = 256
"""Jobs that are done together at most."""


class Job:
    """Something that one caller waits for."""

    __slots__ = ("error", "gate", "leads")

    alone = False
    """Whether it cannot share its turn."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        """Why it was not done."""
        self.gate: threading.Lock | None = None
        """Opened when it is done, or when its caller is to lead."""
        self.leads = False


J = TypeVar("J", bound=Job)


class Turns(Generic[J]):
    """
    Lets one caller at a time do the work of all.

    The first becomes the leader and works in its own thread: with one caller there is no hand-off at all.
    Those that come meanwhile wait; when the leader is done, one of them leads and takes all that has queued.
    """

    def __init__(self, work: Callable[[list[J]], None]) -> None:
        self._work = work
        self._mutex = threading.Lock()
        self._busy = False
        self._waiting: deque[J] = deque()

    def do(self, job: J) -> None:
        """Return when *job* is done, by this thread or by another; then look at `job.error`."""
        turn = False
        # A signal may raise after any call: what was begun until then is given up again.
        try:
            with self._mutex:
                if not self._busy:
                    turn = self._busy = True
                else:
                    job.gate = threading.Lock()
                    job.gate.acquire()
                    self._waiting.append(job)
            if job.gate is not None:
                job.gate.acquire()
        except BaseException:
            if turn:
                self.end()
            else:
                self._abandon(job)
            raise
        if turn:
            self._lead([job])
        elif job.leads:
            self._lead(self._take())

    def do_at_once(self, job: J) -> bool:
        """Do *job* if nobody is at work and that can be told without waiting; whether it was done."""
        if not self.begin(blocking=False):
            return False
        self._lead([job])
        return True

    def begin(self, *, blocking: bool = True) -> bool:
        """Take the turn if nobody has it; whether that is so. Whoever has it must `end` it."""
        if not self._mutex.acquire(blocking=blocking):
            return False
        busy, self._busy = self._busy, True
        self._mutex.release()
        return not busy

    def end(self) -> None:
        """Give the turn that was begun to who waits for it."""
        self._pass_on(())

    def _lead(self, group: list[J]) -> None:
        try:
            self._work(group)
        finally:
            self._pass_on(group)

    def _take(self) -> list[J]:
        with self._mutex:
            group = [self._waiting.popleft()]
            while self._waiting and not (group[0].alone or self._waiting[0].alone) and len(group) < GROUP:
                group.append(self._waiting.popleft())
            return group

    def _pass_on(self, group: Sequence[J]) -> None:
        with self._mutex:
            heir = self._waiting[0] if self._waiting else None
            if heir is None:
                self._busy = False
            else:
                heir.leads = True
        # The heir last: until it runs, those that are done may have queued what they do next.
        for job in (*group[1:], heir):
            if job is not None and job.gate is not None:
                job.gate.release()

    def _abandon(self, job: J) -> None:
        """Nobody waits for *job* any more: its caller was interrupted."""
        with self._mutex:
            if not job.leads:
                if job in self._waiting:
                    self._waiting.remove(job)
                return
            self._waiting.remove(job)
        self._pass_on([job])

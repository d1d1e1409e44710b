"""How much a server lets its clients do, and how it keeps time."""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs

from dspex import errors

__all__ = ["MESSAGE", "PART", "Bucket", "Limits", "Timers"]

MESSAGE = 4 * 1024 * 1024
"""The most bytes of one message, either way."""

PART = 1024 * 1024
"""What is larger is sent in parts of about so many bytes."""


@attrs.frozen(kw_only=True)
class Limits:
    """What a server allows. What is over a limit is refused with `LimitExceeded`."""

    sessions: int = 10_000
    """Sessions that exist through this server."""

    links: int = 4_000
    """Open streams of clients."""

    watches: int = 1_000
    """Sessions that one stream watches."""

    opens: float = 2_000
    """Streams and sessions opened a second; the burst is twice that."""

    commits: float = 10_000
    """Commits of one session a second; the burst is twice that."""

    value_bytes: int = 2 * 1024**3
    """All values above 4 KiB that came in, together."""

    session_bytes: int = 64 * 1024**2
    """The same of one session."""

    words: int = 1_024
    """Characters of an author, a label, a token, the name of a commit."""

    in_flight: int = 256
    """Calls of one stream that wait for a disk."""

    failures: float = 10
    """Refused tokens of one peer a second."""


@attrs.frozen(kw_only=True)
class Timers:
    """Seconds. Tests divide all of them."""

    bookmark: float = 5.0
    """A server that has nothing to say says so this often."""

    silence: float = 15.0
    """A client that heard nothing for so long believes the connection to be dead."""

    backoff: tuple[float, float] = (0.2, 30.0)
    """The longest wait before the first attempt to reconnect, and before any; in between it doubles."""

    good: float = 60.0
    """After so long on one connection the next attempt starts with the short wait again."""

    stalled: float = 30.0
    """A server closes a stream that takes nothing for so long."""

    linger: float = 10.0
    """A client keeps a connection that no session uses for so long."""

    idle: float = 60.0
    """A server keeps a session of a durable store open that nobody uses for so long."""

    hold: float = 60.0
    """A session that is being moved goes on where it was after so long."""

    deadline: float = 5.0
    """A call that has no answer after so long fails."""

    def divided(self, by: float) -> Timers:
        """All of them, the deadline of a call aside, *by* times shorter."""
        values = attrs.asdict(self)
        low, high = values.pop("backoff")
        deadline = values.pop("deadline")
        return Timers(
            **{name: value / by for name, value in values.items()},
            backoff=(low / by, high / by),
            deadline=deadline,
        )


class Bucket:
    """Lets so many pass a second, and twice as many at once after a pause."""

    __slots__ = ("_clock", "_left", "_rate", "_since")

    def __init__(self, rate: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._left = 2 * rate
        self._since = clock()

    def take(self, what: str) -> None:
        """
        Let one pass.

        Raises:
            LimitExceeded: Too many did; `retry_after` says in how many seconds one may.
        """
        if self._left < 1:
            now = self._clock()
            self._left = min(2 * self._rate, self._left + (now - self._since) * self._rate)
            self._since = now
            if self._left < 1:
                wait = (1 - self._left) / self._rate
                raise errors.LimitExceeded(
                    f"{what}: more than {self._rate:g} a second. Try again in {wait:.3f} s.",
                    limit=self._rate,
                    retry_after=wait,
                )
        self._left -= 1

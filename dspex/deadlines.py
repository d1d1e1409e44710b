"""The time that is left for what is being done: one budget, from whoever asks down to the language model."""

from __future__ import annotations

import time
from contextvars import ContextVar
from threading import TIMEOUT_MAX
from typing import Any

from dspex import errors

__all__ = ["check", "check_seconds", "remaining", "within"]

_end: ContextVar[float | None] = ContextVar("dspex_deadline", default=None)
"""On the monotonic clock, which all processes of a machine share."""


def remaining() -> float | None:
    """Seconds left for what runs here, at least 0; None where there is no limit."""
    end = _end.get()
    return None if end is None else max(0.0, end - time.monotonic())


def check(what: str) -> None:
    """
    Let *what* begin if there is time left.

    Raises:
        DeadlineExceeded: There is none.
    """
    if remaining() == 0.0:
        raise errors.DeadlineExceeded(f"no time was left to begin {what}.", what=what)


def check_seconds(seconds: Any, what: str, session: str | None = None, *, least: str = "0 or more") -> None:
    """
    Refuse *seconds*, called *what*, unless somebody can wait for so long; *least* may be `more than 0`.

    Raises:
        InvalidValue: They are no number, NaN, below the least, or longer than Python waits.
    """
    expected = f"{least} seconds"
    if isinstance(seconds, int | float) and not isinstance(seconds, bool):
        if seconds > TIMEOUT_MAX:
            expected = f"at most {TIMEOUT_MAX:.0f} seconds"
        elif seconds > 0 or (seconds == 0 and least == "0 or more"):
            return
    raise errors.InvalidValue.expecting(expected, errors.shown(seconds)).at(what, session)


class within:  # noqa: N801  reads as what it does; a class, since a generator takes four times as long
    """Leave *seconds* for what happens in the block, or less where less was left; None changes nothing."""

    __slots__ = ("_before", "_seconds")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        if self._seconds is not None:
            outer = _end.get()
            end = time.monotonic() + self._seconds
            self._before = _end.set(end if outer is None else min(end, outer))

    def __exit__(self, *_: object) -> None:
        if self._seconds is not None:
            _end.reset(self._before)

"""What a command says by its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from dspex import errors

__all__ = [
    "CONFLICT",
    "INTERRUPTED",
    "MEANINGS",
    "REFUSED",
    "UNAVAILABLE",
    "UNREAD",
    "USAGE",
    "exit_code",
]

REFUSED = 1
USAGE = 2
UNAVAILABLE = 3
CONFLICT = 4
INTERRUPTED = 130
UNREAD = 141

MEANINGS: Mapping[int, str] = MappingProxyType(
    {
        0: "done",
        REFUSED: "refused, and nothing has changed; `doctor` found something broken; a program has raised",
        USAGE: "no such command, option or argument; inputs that a program does not take",
        UNAVAILABLE: "the store cannot be reached, opened or written right now; a program took too long",
        CONFLICT: "somebody else was first: another version than expected, or a claim",
        INTERRUPTED: "ended by Ctrl-C",
        UNREAD: "whoever read the output has gone, as `head` does",
    }
)
"""Every exit code, for the page about the commands."""

_CODES: tuple[tuple[int, tuple[type[errors.DspexError], ...]], ...] = (
    (UNAVAILABLE, (errors.StoreUnavailable, errors.DeadlineExceeded, errors.StaleRead)),
    (CONFLICT, (errors.VersionConflict, errors.Claimed)),
)


def exit_code(error: errors.DspexError) -> int:
    """The exit code of a command that ended with *error*."""
    return next((code for code, kinds in _CODES if isinstance(error, kinds)), REFUSED)

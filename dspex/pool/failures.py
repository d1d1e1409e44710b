"""Errors between processes: as themselves where their class can be had, else as `ProgramError`."""

from __future__ import annotations

import importlib
import traceback
from typing import Any

from dspex import errors
from dspex.pool.programs import MAIN
from dspex.pool.values import PLAIN

__all__ = ["pack_failure", "unpack_failure"]


def pack_failure(error: BaseException, where: str) -> list[Any]:
    """*error*, raised at *where*, as plain data."""
    cls = type(error)
    told = traceback.TracebackException.from_exception(error)
    told.__notes__ = None  # they travel apart
    text = "".join(told.format())
    attributes = error.facts if isinstance(error, errors.DspexError) else vars(error)
    state = {key: value for key, value in attributes.items() if key != "__notes__" and _travels(value)}
    given = list(error.args)
    if isinstance(error, OSError) and error.filename is not None:
        given += [error.filename, None, error.filename2]
    args = given if _travels(given) else None
    notes = [note for note in getattr(error, "__notes__", ()) if isinstance(note, str)]
    return [
        "__main__" if cls.__module__ == MAIN else cls.__module__,
        cls.__qualname__,
        None if args is None else PLAIN.pack(args, "args"),
        PLAIN.pack(state, "state"),
        _words(error),
        notes,
        f"in {where}:\n{text}",
    ]


def unpack_failure(plain: list[Any], *, imports: bool = True) -> Exception:
    """
    The error that *plain* tells of; its last note is the traceback of the other process.

    Args:
        plain: What `pack_failure` gave.
        imports: Whether the other end is trusted to name a class that is to be imported. The errors of dspex
            and of Python need no trust.
    """
    module, name, args, state, words, notes, remote = plain
    made = _itself(module, name, args, state, words, imports=imports)
    if made is None:
        made = errors.ProgramError(
            f"{name}: {words}" if words else name, type=f"{module}.{name}", traceback=remote
        )
    for note in notes:
        made.add_note(note)
    made.add_note(remote.rstrip())
    return made


def _itself(
    module: str, name: str, args: Any, state: bytes, words: str, *, imports: bool
) -> Exception | None:
    if args is None:
        return None
    try:
        cls: Any = (
            importlib.import_module(module) if imports or module in ("builtins", "dspex.errors") else None
        )
        for part in name.split("."):
            cls = getattr(cls, part)
        if not (isinstance(cls, type) and issubclass(cls, Exception)):
            return None
        given = PLAIN.unpack(args)
        if issubclass(cls, errors.DspexError):
            return cls(*given, **PLAIN.unpack(state))
        # Not called: what an __init__ of its own wants is not what ended up in args.
        made: Exception = cls.__new__(cls, *given) if module != "builtins" else cls(*given)
        if module != "builtins":
            made.args = tuple(given)
        vars(made).update(PLAIN.unpack(state))
    except Exception:
        return None
    return made if _words(made) == words else None


def _travels(value: Any) -> bool:
    try:
        PLAIN.pack(value, "")
    except Exception:
        return False
    return True


def _words(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception:  # of the author's making
        return ""

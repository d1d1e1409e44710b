"""Who makes a change."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from typing import Any

from dspex import errors

__all__ = ["check_source", "default_source"]

LENGTH = 256
"""Characters that the name of an author may have: it stays with every value."""


def check_source(source: Any) -> None:
    """Refuse an author that is not a short text."""
    valid = isinstance(source, str) and len(source) <= LENGTH
    if not valid or source.encode("utf-8", "replace").decode() != source:
        expected = f"text of at most {LENGTH} characters"
        raise errors.InvalidValue.expecting(expected, errors.shown(source, 60)).at("source")


def default_source() -> str:
    """Who sets when nobody says: the script and its process."""
    return _source_of(os.getpid(), sys.argv[0] if sys.argv else "")


@lru_cache(maxsize=1)
def _source_of(process: int, script: str) -> str:
    return f"{script.rpartition(os.sep)[2] or 'python'}[{process}]"

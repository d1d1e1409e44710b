"""Where commands print: answers on stdout, remarks and refusals on stderr."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

from dspex import errors

__all__ = ["answer", "lines", "more", "note", "printable", "refuse", "table", "value"]


def answer(thing: Any) -> None:
    """Print *thing* as one line of JSON."""
    _say(sys.stdout, json.dumps(thing, allow_nan=False))


def lines(texts: Iterable[str]) -> None:
    """Print each of *texts* as one line."""
    for text in texts:
        _say(sys.stdout, printable(text))


def value(text: str) -> None:
    """Print *text* as it is; on a terminal, without what a terminal would obey."""
    _say(sys.stdout, printable(text) if sys.stdout.isatty() else text)


def more(text: str) -> None:
    """Print *text* where the last one has ended."""
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def note(sentence: str) -> None:
    """Say something that is not the answer."""
    _say(sys.stderr, printable(sentence))


def refuse(error: errors.DspexError, *, as_json: bool) -> None:
    """Say why a command did not do what it was asked to."""
    if not as_json:
        return note(error.message)
    facts = {name: fact for name, fact in error.facts.items() if _is_plain(fact)}
    said = {"error": {"code": error.code, "message": error.message, "facts": facts}}
    return _say(sys.stderr, json.dumps(said))


def _say(stream: TextIO, text: str) -> None:
    # At once: whoever reads a pipe is waiting for the line.
    stream.write(f"{text}\n")
    stream.flush()


def _is_plain(fact: Any) -> bool:
    return fact is None or isinstance(fact, str | int) or (isinstance(fact, float) and math.isfinite(fact))


def printable(text: str) -> str:
    """*text* without what would move the cursor or change the colours of a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print *rows* under *heads*: for people where there is a terminal, else in plain columns."""
    shown = [[printable(cell).replace("\n", "\\n") for cell in row] for row in rows]
    if sys.stdout.isatty():
        return _rich_table(heads, shown)
    lines = [[head.upper() for head in heads], *shown]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        _say(sys.stdout, "  ".join(cells).rstrip())
    return None


def _rich_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, pad_edge=False, header_style="bold")
    for number, head in enumerate(heads):
        grid.add_column(head.upper(), style="cyan" if number == 0 else "", overflow="fold")
    for row in rows:
        grid.add_row(*map(Text, row))
    Console().print(grid)

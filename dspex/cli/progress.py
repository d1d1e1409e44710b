"""What is seen of a study while it runs: on a terminal a table that grows, else a line for each trial."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dspex.cli import printing
from dspex.cli.rendering import TRIAL_HEADS, trial_cells

if TYPE_CHECKING:
    from dspex.optimizers import Trial

__all__ = ["telling"]

SHOWN = 12
"""Trials that the table has: the newest, and the best."""


@contextmanager
def telling(*, quiet: bool) -> Iterator[Callable[[Trial], object]]:
    """What to call with each trial; on stderr, as it is not the answer."""
    if quiet:
        yield lambda _: None
    elif not sys.stderr.isatty():
        yield lambda trial: printing.note("  ".join(trial_cells(trial)))
    else:
        with _growing() as grow:
            yield grow


@contextmanager
def _growing() -> Iterator[Callable[[Trial], object]]:
    from rich.console import Console
    from rich.live import Live

    seen: list[Trial] = []
    # What the program prints stands above the table, unless stdout is somewhere else.
    to_stdout = sys.stdout.isatty()
    with Live(console=Console(stderr=True), auto_refresh=False, redirect_stdout=to_stdout) as live:

        def grow(trial: Trial) -> None:
            seen.append(trial)
            live.update(_drawn(seen), refresh=True)

        yield grow


def _drawn(seen: Sequence[Trial]) -> Any:
    from rich.table import Table
    from rich.text import Text

    done = [one for one in seen if one.state == "complete" and one.score is not None]
    best = max(done, key=lambda one: one.score or 0.0, default=None)
    newest = seen[-SHOWN:]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for head in TRIAL_HEADS:
        table.add_column(head.upper(), overflow="fold")
    for one in newest if best is None or best in newest else (best, *newest):
        cells = (Text(printing.printable(cell)) for cell in trial_cells(one))
        table.add_row(*cells, style="cyan" if one is best else None)
    return table

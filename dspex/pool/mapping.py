"""`map`: many inputs, a bounded number of them on their way, what became of each."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from concurrent.futures import FIRST_COMPLETED, CancelledError, wait
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.pool.calls import Call, Outcome

if TYPE_CHECKING:
    from dspex.pool.base import BasePool

__all__ = ["Progress", "outcomes", "split"]

Progress = Callable[[int, int | None], object]
"""Is told how many are done, of how many if that is known."""

Waiting = deque[tuple[Any, float, Call | Exception]]


def split(inputs: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    """
    Inputs by position and by name: a mapping is by name, a tuple by position, anything else the only one.
    """
    if isinstance(inputs, Mapping):
        return (), inputs
    return (inputs if isinstance(inputs, tuple) else (inputs,)), {}


def outcomes(
    pool: BasePool,
    program: Any,
    items: Iterable[Any],
    in_flight: int,
    progress: bool | Progress,
    **settings: Any,
) -> Iterator[Outcome]:
    """What becomes of each of *items*, in their order."""
    total = len(items) if isinstance(items, Sized) else None
    waiting: Waiting = deque()
    done = 0
    with _telling(progress, total) as tell:
        try:
            for item in items:
                if len(waiting) >= in_flight:
                    yield _outcome(*waiting.popleft())
                    done += 1
                    tell(done, total)
                waiting.append((item, time.monotonic(), _patiently(pool, program, item, waiting, settings)))
            while waiting:
                yield _outcome(*waiting.popleft())
                done += 1
                tell(done, total)
        finally:
            for _, _, made in waiting:
                if isinstance(made, Call):
                    made.cancel()


def _patiently(
    pool: BasePool, program: Any, item: Any, waiting: Waiting, settings: dict[str, Any]
) -> Call | Exception:
    """Submit *item* when there is room, which others may need too."""
    while True:
        try:
            return pool.submit(program, item, **settings)
        except errors.PoolSaturated as full:
            calls = [made for _, _, made in waiting if isinstance(made, Call) and not made.done()]
            if not calls:
                return full
            wait(calls, return_when=FIRST_COMPLETED)
        except (errors.PoolClosed, errors.UnknownProgram, errors.SessionClosed):
            raise
        except Exception as error:  # of this item
            return error


def _outcome(item: Any, began: float, made: Call | Exception) -> Outcome:
    if isinstance(made, Exception):
        return Outcome(item, None, made, 0.0)
    try:
        output, error = made.result(), None
    except (Exception, CancelledError) as raised:
        output, error = None, raised
    return Outcome(item, output, error, (made.ended or time.monotonic()) - began)


@contextmanager
def _telling(progress: bool | Progress, total: int | None) -> Iterator[Progress]:
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda _done, _total: None
    else:
        try:
            from rich.progress import BarColumn, MofNCompleteColumn, TimeElapsedColumn
            from rich.progress import Progress as Bar
        except ImportError:
            raise errors.missing_extra("Progress bars", "cli") from None
        with Bar(BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()) as bar:
            task = bar.add_task("", total=total)
            yield lambda done, _total: bar.update(task, completed=done)

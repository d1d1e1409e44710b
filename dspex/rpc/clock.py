"""One thread that looks at all connections of this process when it is time to."""

from __future__ import annotations

import logging
import os
import threading
from typing import Protocol
from weakref import WeakSet

__all__ = ["wake", "watch"]


_log = logging.getLogger("dspex.rpc")


class Ticking(Protocol):
    """What wants to be looked at."""

    def tick(self) -> float:
        """Do what is due; the seconds until the next time."""
        ...


class _State:
    def __init__(self) -> None:
        self.watched: WeakSet[Ticking] = WeakSet()
        self.changed = threading.Condition()
        self.thread: threading.Thread | None = None
        self.woken = False


_state = _State()


def watch(ticking: Ticking) -> None:
    """Call its `tick` when it is time, for as long as it lives."""
    with _state.changed:
        _state.watched.add(ticking)
        if _state.thread is None:
            _state.thread = threading.Thread(target=_run, args=(_state,), name="dspex-rpc-clock", daemon=True)
            _state.thread.start()
    wake()


def wake() -> None:
    """Look at all of them now."""
    with _state.changed:
        _state.woken = True
        _state.changed.notify()


def _run(state: _State) -> None:
    while True:
        with state.changed:
            watched = list(state.watched)
        delay = min(map(_ticked, watched), default=None)
        del watched  # so that what nobody else has can go
        with state.changed:
            if delay is None and not state.watched:
                state.thread = None
                return
            if not state.woken:
                state.changed.wait(delay)
            state.woken = False


def _ticked(ticking: Ticking) -> float:
    try:
        return ticking.tick()
    except Exception:
        _log.exception("looking after a connection failed")
        return 1.0


def _forget() -> None:
    global _state  # noqa: PLW0603 - the thread is in the parent
    _state = _State()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

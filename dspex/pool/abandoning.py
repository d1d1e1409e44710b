"""Pools in a child of fork: they are the parent's, with their workers, threads and files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from weakref import WeakSet

if TYPE_CHECKING:
    from dspex.pool.scheduling import Scheduler

__all__ = ["pools"]

pools: WeakSet[Scheduler] = WeakSet()
"""Those that have begun in this process, or in one of which it is a fork."""


def _forked() -> None:
    for pool in list(pools):
        pool.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)

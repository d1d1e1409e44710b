"""
Pools: programs in other processes, on this machine or on many.

`Pool` has worker processes of this machine, `RayPool` those of a Ray cluster. Both keep one contract, which
`dspex.pool.base` tells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex.later import later
from dspex.pool.base import BasePool
from dspex.pool.calls import AsyncStream, Call, Outcome, Stream
from dspex.pool.local import Pool
from dspex.pool.members import Stats, Tally, WorkerStats
from dspex.pool.settings import Settings

if TYPE_CHECKING:
    from dspex.pool.on_ray import RayPool

__all__ = [
    "AsyncStream",
    "BasePool",
    "Call",
    "Outcome",
    "Pool",
    "RayPool",
    "Settings",
    "Stats",
    "Stream",
    "Tally",
    "WorkerStats",
]

__getattr__ = later(__name__, {"RayPool": "on_ray"})

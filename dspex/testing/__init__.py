"""What others need to test against dspex: the contracts that every store and every pool keeps, for pytest."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex.testing.pools import PoolContract
    from dspex.testing.stores import StoreContract

__all__ = ["PoolContract", "StoreContract"]

_rooms = {"PoolContract": "dspex.testing.pools", "StoreContract": "dspex.testing.stores"}


def __getattr__(name: str) -> Any:
    if name not in _rooms:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest  # workers of a pool that is tested import programs from here, and need none of this

    # First, so that a failing assertion of the contract shows both sides, as in a test of one's own.
    names = ("commits", "machine", "pool_calls", "pools", "sessions", "stores", "tools")
    new = {f"{__name__}.{room}" for room in names} - sys.modules.keys()
    pytest.register_assert_rewrite(*new)
    return getattr(import_module(_rooms[name]), name)

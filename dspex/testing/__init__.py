"""What others need to test against dspex: the contract that every store keeps, for pytest and hypothesis."""

from __future__ import annotations

import pytest

# First, so that a failing assertion of the contract shows both sides, as in a test of one's own.
for _name in ("commits", "machine", "sessions", "stores", "tools"):
    pytest.register_assert_rewrite(f"dspex.testing.{_name}")

from dspex.testing.stores import StoreContract  # noqa: E402 - see above

__all__ = ["StoreContract"]

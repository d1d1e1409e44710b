"""How long a promise is tested: for seconds in CI, at full length by `make soak`."""

from __future__ import annotations

import os

SOAK = bool(os.environ.get("DSPEX_SOAK"))


def often(ci, full):
    """The number of CI, or that of `make soak`."""
    return full if SOAK else ci


LIMIT = often(110, 3_000)
"""Seconds that a test may take."""

"""Helpers of the tests of Redis stores."""

import time
from contextlib import contextmanager


@contextmanager
def elapsed(at_most):
    """A block that must not take longer, in seconds."""
    begin = time.monotonic()
    yield
    assert time.monotonic() - begin < at_most

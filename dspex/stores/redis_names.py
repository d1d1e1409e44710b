"""Names that no other process gives: of commits, and of histories."""

from __future__ import annotations

import os
from itertools import count

__all__ = ["new_origin", "next_nonce", "next_op"]


def _begin() -> None:
    global _prefix, _ops, _nonces  # noqa: PLW0603 - a child that goes on with its parent's would be taken for it
    _prefix = os.urandom(6).hex().encode()
    _ops = count(1)
    _nonces = count(int.from_bytes(os.urandom(7)) + 1)


_prefix: bytes
_ops: count[int]
_nonces: count[int]
_begin()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin)


def next_op() -> bytes:
    """A name for a commit."""
    return b"%b-%x" % (_prefix, next(_ops))


def next_nonce() -> bytes:
    """A number that tells one commit from another that has its revision."""
    return b"%d" % next(_nonces)


def new_origin() -> bytes:
    """A name for a connection, by which it knows what it has published itself."""
    return os.urandom(6).hex().encode()

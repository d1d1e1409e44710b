"""Which worker has a session: consistent hashing, so that a change of the number of workers moves few."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

__all__ = ["home"]


def home(session: str, slots: Iterable[int]) -> int:
    """
    The one of *slots* where *session* belongs, the same in every process.

    Rendezvous hashing (Thaler and Ravishankar, 1998): each slot draws a number for the session, and the
    highest wins. A slot that goes takes only its own sessions along, a new one draws 1/n of them to itself.
    """
    name = session.encode()
    return max(slots, key=lambda slot: blake2b(name, digest_size=8, key=b"%d" % slot).digest())

"""Locks that a child made by `os.fork` finds free."""

from __future__ import annotations

import os
import threading
from _thread import RLock
from weakref import KeyedRef

__all__ = ["ForkSafeLock", "OwnedLock"]


# Both are locks of CPython itself, to the last method. It handles signals after calls: one that comes as such
# a lock is taken finds the `with` statement ready to give it back. It would not if `__enter__` were Python,
# nor between an `acquire()` and its `try`.


class ForkSafeLock(RLock):  # type: ignore[misc]  # CPython lets us; final in the stubs alone
    """
    A lock whose owner's state is whole in a forked child.

    Forking takes every such lock first, so no other thread is in the middle of a commit, and gives all of
    them back on both sides. Therefore no user code may run while one is held, and no other one be taken.

    The exception is what the garbage collector runs: an abandoned session may be closed in the middle of a
    commit, by the same thread. So the lock is re-entrant.
    """

    __slots__ = ()

    def __init__(self) -> None:
        _safe[id(self)] = KeyedRef(self, _forget_safe, id(self))


class OwnedLock(RLock):  # type: ignore[misc]  # the same
    """
    A re-entrant lock under which user code may run.

    A forked child finds it free, unless the thread that forked holds it: what other threads were doing under
    it does not go on in the child.
    """

    __slots__ = ()

    def __init__(self) -> None:
        _owned[id(self)] = KeyedRef(self, _forget_owned, id(self))

    def free_in_child(self) -> None:
        """Forget the threads that are not in this process."""
        if not self._is_owned():  # type: ignore[attr-defined]  # `threading` uses both
            self._at_fork_reinit()  # type: ignore[attr-defined]


_forking = threading.Lock()
"""One thread at a time forks."""

# Plain dicts, whose single operations are atomic: a lock is made while others are held.
_safe: dict[int, KeyedRef[int, ForkSafeLock]] = {}
_owned: dict[int, KeyedRef[int, OwnedLock]] = {}
_held: dict[int, ForkSafeLock] = {}


def _forget_safe(gone: KeyedRef[int, ForkSafeLock]) -> None:
    _safe.pop(gone.key, None)


def _forget_owned(gone: KeyedRef[int, OwnedLock]) -> None:
    _owned.pop(gone.key, None)


def _before_fork() -> None:
    _forking.acquire()
    while new := [lock for one in list(_safe.values()) if (lock := one()) and id(lock) not in _held]:
        for lock in new:
            lock.acquire()
            _held[id(lock)] = lock


def _after_fork() -> None:
    while _held:
        _held.popitem()[1].release()
    _forking.release()


def _after_fork_in_child() -> None:
    for one in list(_owned.values()):
        if (lock := one()) is not None:
            lock.free_in_child()
    _after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)

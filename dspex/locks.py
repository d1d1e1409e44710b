"""Locks that a child made by `os.fork` finds free."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from threading import get_ident
from weakref import KeyedRef

__all__ = ["ForkSafeLock", "OwnedLock"]


class ForkSafeLock:
    """
    A lock whose owner's state is whole in a forked child.

    Forking takes every such lock first, so no other thread is in the middle of a commit, and gives all of
    them back on both sides. Therefore no user code may run while one is held, and no other one be taken.

    The exception is what the garbage collector runs: an abandoned session may be closed in the middle of a
    commit, by the same thread. So the lock is re-entrant, unless a condition waits on it.
    """

    __slots__ = ("__weakref__", "acquire", "release")

    acquire: Callable[..., bool]
    """Bound beforehand: in `try … finally` half the time of a `with` statement on CPython 3.11."""

    release: Callable[[], None]

    def __init__(self, *, reentrant: bool = True) -> None:
        lock = threading.RLock() if reentrant else threading.Lock()
        self.acquire = lock.acquire
        self.release = lock.release
        _safe[id(self)] = KeyedRef(self, _forget_safe, id(self))

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class OwnedLock:
    """
    A re-entrant lock under which user code may run.

    A forked child finds it free, unless the thread that forked holds it: what other threads were doing under
    it does not go on in the child.
    """

    __slots__ = ("__weakref__", "_depth", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._owner: int | None = None
        self._depth = 0
        _owned[id(self)] = KeyedRef(self, _forget_owned, id(self))

    def acquire(self, *, blocking: bool = True) -> bool:
        """Take it; if others have it, wait where *blocking*, else return False."""
        if not self._lock.acquire(blocking):
            return False
        self._owner = get_ident()
        self._depth += 1
        return True

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def release(self) -> None:
        """Give it back."""
        self._depth -= 1
        if not self._depth:
            self._owner = None
        self._lock.release()

    def free_in_child(self) -> None:
        """Forget the threads that are not in this process."""
        if self._owner != get_ident():
            self._lock = threading.RLock()
            self._owner = None
            self._depth = 0


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

"""Where threads wait until a connection has something to read, and take turns at reading it."""

from __future__ import annotations

import select
import socket
import threading
from contextlib import suppress
from typing import Any

__all__ = ["Ear"]

ONCE = getattr(select, "EPOLLIN", 0) | getattr(select, "EPOLLONESHOT", 0)


class Ear:
    """
    A socket that any number of threads wait at.

    On Linux the system wakes one of them, and no other one until that one has given back its turn: it can do
    so and go on with what it has read, and no change of threads is needed while nothing more comes. Another
    thread may borrow the turn, and read itself. Elsewhere they wait one after another, and nobody can borrow.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._wanted = False
        """Whether somebody who waited here wants the turn that another one has."""
        self._yields = hasattr(select, "epoll")
        self._poll: Any = None
        self._socket: socket.socket | None = None
        self._file = -1
        self._near: socket.socket | None = None
        self._far: socket.socket | None = None

    def open(self) -> None:
        """Be there, with nothing to hear yet."""
        if self._poll is None:
            self._near, self._far = socket.socketpair()
            self._near.setblocking(False)
            self._far.setblocking(False)
            if self._yields:
                self._poll = select.epoll()
                # On edge: somebody is woken for each call, not all of them until one has looked.
                self._poll.register(self._near, select.EPOLLIN | select.EPOLLET)
            else:
                self._poll = select.poll()
                self._poll.register(self._near, select.POLLIN)

    def close(self) -> None:
        """Give back what the system keeps for this. In a child of fork the parent's goes on."""
        if self._poll is not None:
            near, far, poll = self._near, self._far, self._poll
            self._poll = self._socket = self._near = self._far = None
            assert near is not None
            assert far is not None
            near.close()
            far.close()
            if self._yields:
                poll.close()

    # ---- with the turn ------------------------------------------------------------------------------

    def take(self) -> None:
        """Take the turn without waiting for anything to read."""
        if not self._turn.acquire(blocking=False):
            self._wanted = True
            self._turn.acquire()
            self._wanted = False

    def borrow(self) -> bool:
        """Take the turn unless another one has it or wants it, and have nobody woken; whether it is ours."""
        if self._wanted or not self._turn.acquire(blocking=False):
            return False
        self._listen(0)
        return True

    def hear(self, heard: socket.socket) -> None:
        """Wait at *heard* from now on."""
        self._file = heard.fileno()
        self._socket = heard
        self._poll.register(self._file, ONCE if self._yields else select.POLLIN)

    def forget(self) -> None:
        """Wait at no connection; before it is closed."""
        if self._socket is not None:
            self._socket = None
            with suppress(OSError, KeyError, ValueError):
                self._poll.unregister(self._file)

    def give(self) -> None:
        """Give back the turn: from now on another one is woken."""
        self._listen(ONCE)
        self._turn.release()

    # ---- without ------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> bool:
        """Wait so long, at most, then for the turn; whether there is something to read."""
        if self._yields:
            ready = self._poll.poll(seconds)
            self.take()
        else:
            self.take()
            try:
                ready = self._poll.poll(1000 * seconds)
            except BaseException:
                self._turn.release()
                raise
        near = self._near
        assert near is not None
        found = False
        for file, _ in ready:
            if file == self._file:
                found = True
            else:
                with suppress(OSError):
                    near.recv(4096)
        return found

    def wake(self) -> None:
        """Have somebody take a turn though nothing came."""
        far = self._far
        if far is not None:
            with suppress(OSError):
                far.send(b"\0")

    def _listen(self, events: int) -> None:
        poll = self._poll
        if poll is not None and self._socket is not None and self._yields:
            with suppress(OSError, ValueError):
                poll.modify(self._file, events)

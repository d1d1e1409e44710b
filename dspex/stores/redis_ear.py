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
    so and go on with what it has read, and no change of threads is needed while nothing more comes. Who asks
    for an answer on another connection can be left alone for so long. Elsewhere they wait one after another.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
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
        """Wait for the turn, and for nothing else."""
        self._turn.acquire()

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
        if self._yields:
            self.listen()
        self._turn.release()

    # ---- without ------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> bool:
        """Wait so long, at most, then for the turn; whether there is something to read."""
        if self._yields:
            ready = self._poll.poll(seconds)
            self._turn.acquire()
        else:
            self._turn.acquire()
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

    def hush(self) -> None:
        """Wake nobody for what comes until somebody says `listen`, or a wait is over."""
        if self._socket is not None and self._yields:
            with suppress(OSError, ValueError):
                self._poll.modify(self._file, 0)

    def listen(self) -> None:
        """Wake somebody for what comes, or has come."""
        if self._socket is not None and self._yields:
            with suppress(OSError, ValueError):
                self._poll.modify(self._file, ONCE)

"""Which files have something to read, for one thread that waits and others that may take a file from it."""

from __future__ import annotations

import select
import selectors
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["Readiness"]


class Readiness:
    """
    Files, and what to call when one can be read.

    On Linux any thread may quieten a file while another waits, to read it itself, which saves a change of
    threads for every message. Elsewhere `yields` is false, and files are never quiet.
    """

    def __init__(self) -> None:
        self.yields = hasattr(select, "epoll")
        self._calls: dict[int, Callable[[], object]] = {}
        self._selector: Any = select.epoll() if self.yields else selectors.DefaultSelector()

    def add(self, file: int, call: Callable[[], object], *, quiet: bool = False) -> None:
        """Call *call* whenever *file* can be read."""
        self._calls[file] = call
        if self.yields:
            self._selector.register(file, 0 if quiet else select.EPOLLIN)
        else:
            self._selector.register(file, selectors.EVENT_READ)

    def wake(self, file: int) -> None:
        """Look at *file* again."""
        if self.yields:
            with suppress(OSError, ValueError):
                self._selector.modify(file, select.EPOLLIN)

    def quieten(self, file: int) -> None:
        """Do not look at *file* for now."""
        if self.yields:
            with suppress(OSError, ValueError):
                self._selector.modify(file, 0)

    def remove(self, file: int) -> None:
        """Forget *file*."""
        if self._calls.pop(file, None) is not None:
            with suppress(KeyError, OSError, ValueError):
                self._selector.unregister(file)

    def replace(self, file: int, by: int) -> None:
        """Look at *by* from now on, not at *file*, and call the same."""
        call = self._calls[file]
        self.remove(file)
        self.add(by, call)

    def wait(self, seconds: float) -> None:
        """Wait so long for something to read, and call what is to be called."""
        if self.yields:
            found = [file for file, _ in self._selector.poll(seconds)]
        else:
            found = [key.fd for key, _ in self._selector.select(seconds)]
        for file in found:
            call = self._calls.get(file)
            if call is not None:
                call()

    def close(self) -> None:
        """Let go of what the system keeps for this."""
        self._selector.close()

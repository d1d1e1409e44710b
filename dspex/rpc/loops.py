"""The one event loop in which all servers of a process run: grpc.aio works in one loop only."""

from __future__ import annotations

import asyncio
import atexit
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

__all__ = ["in_loop", "loop"]

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def loop() -> asyncio.AbstractEventLoop:
    """The loop, started with the first server."""
    global _loop, _thread  # noqa: PLW0603 - there is one
    with _lock:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_run, args=(_loop,), name="dspex-rpc-server", daemon=True)
            _thread.start()
        return _loop


def _run(running: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(running)
    try:
        running.run_forever()
    finally:
        running.close()


def in_loop(coroutine: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
    """What *coroutine* gives, run there."""
    return asyncio.run_coroutine_threadsafe(coroutine, loop()).result(timeout)


@atexit.register
def _stop() -> None:
    global _loop
    with _lock:
        running, _loop = _loop, None
    if running is not None and _thread is not None:
        running.call_soon_threadsafe(running.stop)
        _thread.join(5)


def _forget() -> None:
    global _loop, _thread, _lock  # noqa: PLW0603 - there is one
    _lock = threading.Lock()
    _loop = _thread = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

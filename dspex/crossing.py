"""From functions to coroutines and back, with the caller's context."""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import Future

__all__ = ["OneLoop", "WouldWait", "check_may_wait", "here", "in_loop", "in_thread", "result_of"]


class WouldWait(BaseException):
    """What a loop has called itself has to wait. Nothing is done yet: it is called again in a thread."""


class _Here(threading.local):
    asked: object = None
    """Whom the loop of this thread asks itself, because nobody has to wait for the answer."""


here = _Here()


def check_may_wait(asked: object) -> None:
    """Raise `WouldWait` where the loop of this thread asks *asked* itself."""
    if here.asked is asked:
        raise WouldWait


def in_thread(call: Callable[[], Any]) -> Future[Any]:
    """What *call* returns or raises, made in a new thread with a copy of the caller's context."""
    from concurrent.futures import Future

    future: Future[Any] = Future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            future.set_result(context.run(call))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, name="dspex", daemon=True).start()
    return future


def in_loop() -> bool:
    """Whether an event loop runs in this thread."""
    asyncio = sys.modules.get("asyncio")  # who has not imported it runs no loop
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def result_of(awaitable: Awaitable[Any]) -> Any:
    """What *awaitable* gives, waited for from a function, whether a loop runs in this thread or not."""
    import asyncio

    async def awaited() -> Any:
        return await awaitable

    if not in_loop():
        return asyncio.run(awaited())
    # A loop must not be entered twice: another thread gets one of its own.
    return in_thread(lambda: asyncio.run(awaited())).result()


class OneLoop:
    """`result_of` in one loop, which lives as long as the block, so that connections outlive a call."""

    def __init__(self) -> None:
        self._runner: asyncio.Runner | None = None

    def __call__(self, awaitable: Awaitable[Any]) -> Any:
        import asyncio

        async def awaited() -> Any:
            return await awaitable

        if self._runner is None:
            self._runner = asyncio.Runner()
        # A runner would use the context of its first call for all.
        return self._runner.run(awaited(), context=contextvars.copy_context())

    def close(self) -> None:
        """End the loop."""
        if self._runner is not None:
            self._runner.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

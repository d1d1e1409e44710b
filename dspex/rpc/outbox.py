"""What one stream of a server still has to send."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Iterator
from typing import Any

from dspex.rpc.auth import Caller
from dspex.rpc.hubs import Hub
from dspex.rpc.limits import PART

__all__ = ["Outbox"]

_log = logging.getLogger("dspex.rpc")


class Outbox:
    """
    Answers in the order of the calls, and the commits of the sessions that are watched.

    Small answers wait here; there are never more than the client asked for, as its calls are not read while
    they are not taken. Large ones are made part by part, each when the one before is on its way. Commits do
    not wait here: a session keeps them once for all.

    Belongs to the thread of the server's loop. What is told is given to grpc in the same turn of the loop,
    unless something is on its way: a task that writes would begin a turn later, and a turn is a tenth of the
    way to the client.
    """

    def __init__(self, context: Any, caller: Caller) -> None:
        self._context = context
        self.caller = caller
        """Who reads it."""
        self._loop = asyncio.get_running_loop()
        self._out: deque[bytes | Iterator[bytes]] = deque()
        self._dirty: dict[Hub, None] = {}
        self._emptied: asyncio.Future[None] | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when the stream is to end, and all that was told before is sent."""
        self.sent: dict[Hub, int] = {}
        """Up to which revision each session was told."""
        self.began: float | None = None
        """When the write began that is not finished."""
        self.held = False
        """Whether more will be told in this turn, after which `flush` is called."""
        self.closing = False
        self.gone = False
        """Whether nobody reads any more."""
        self.single = False
        """Whether the stream is of one session, and ends with it."""

    # ---- what is to be sent ------------------------------------------------------------------------

    def tell(self, data: bytes | Iterator[bytes]) -> None:
        """Send one frame of an item, or several that are made when it is their turn."""
        if not self.gone:
            self._out.append(data)
            if self.began is None and not self.held:
                self.flush()

    def behind(self, hub: Hub) -> None:
        """Send what *hub* has to tell."""
        if not self.gone:
            self._dirty[hub] = None
            if self.began is None and not self.held:
                self.flush()

    def catch_up(self, hub: Hub, upto: int) -> None:
        """Put what *hub* has to tell up to *upto* before all that is told from now on."""
        while self.sent[hub] < upto:
            self._advance(hub, upto)

    def _advance(self, hub: Hub, upto: int) -> None:
        sent = self.sent[hub]
        found, at = hub.since(sent, upto)
        self.sent[hub] = at if at > sent else upto
        if isinstance(found, list):
            self._out.extend(found)
        else:
            self._out.append(found)

    def bookmarks(self) -> None:
        """Say of every session how far it was told."""
        for hub in list(self.sent):
            self.catch_up(hub, hub.rev)
            self._dirty.pop(hub, None)
            self.tell(hub.bookmark(self.sent[hub]))

    def forget(self, hub: Hub) -> None:
        """Send nothing of *hub* any more."""
        self._dirty.pop(hub, None)
        self.sent.pop(hub, None)
        hub.leave(self)
        if self.single and hub.ended:
            self.stop()

    # ---- the end -----------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the stream after what was told."""
        self.closing = True
        if self.began is None:
            self.flush()

    def close(self) -> None:
        """Leave all sessions; nothing is sent any more."""
        self.abandon()
        for hub in list(self.sent):
            self.forget(hub)

    def abandon(self) -> None:
        """End the stream now: nobody reads it."""
        self.gone = self.closing = True
        self._out.clear()
        self._dirty.clear()
        self._settle()

    # ---- sending -----------------------------------------------------------------------------------

    @property
    def queued(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._out or self._dirty)

    @property
    def busy(self) -> bool:
        """Whether something waits to be sent, or is on its way."""
        return self.queued or self.began is not None

    async def emptied(self) -> None:
        """Return when everything is sent that was told."""
        while self.busy and not self.gone:
            if self._emptied is None or self._emptied.done():
                self._emptied = self._loop.create_future()
            await self._emptied

    def flush(self) -> None:
        """Send what there is. Is called again by itself when what is on its way has gone."""
        self.held = False
        try:
            while self.began is None and (self._out or self._dirty):
                data = self._take()
                if data:
                    self.began = self._loop.time()
                    self._go_on(self._context.write(data))
        except Exception:
            _log.exception("a stream was ended: what it was to be told could not be made")
            self.abandon()
        if self.began is None:
            self._settle()

    def _go_on(self, writing: Coroutine[Any, Any, None]) -> None:
        """Run *writing* up to where it waits, as a task does that has its turn."""
        try:
            waits_for = writing.send(None)
        except StopIteration:
            self.began = None
        except (Exception, asyncio.CancelledError):
            # Whoever was to read this has gone; grpc has several ways to say so.
            self.began = None
            self.abandon()
        else:
            waits_for._asyncio_future_blocking = False
            waits_for.add_done_callback(lambda _: self._went(writing))

    def _went(self, writing: Coroutine[Any, Any, None]) -> None:
        self._go_on(writing)
        if self.began is None:
            self.flush()

    def _settle(self) -> None:
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
        if self.closing and not self.ended.done():
            self.ended.set_result(None)

    def _take(self) -> bytes:
        """What is to be written next; empty if there is nothing after all."""
        out = self._out
        if not out:
            hub, _ = self._dirty.popitem()
            if self.sent.get(hub, hub.rev) < hub.rev:
                self._advance(hub, hub.rev)
                if self.sent[hub] < hub.rev:
                    self._dirty[hub] = None
        if len(out) == 1 and isinstance(out[0], bytes):
            return out.popleft()  # type: ignore[return-value]
        batch: list[bytes] = []
        size = 0
        while out and size < PART:
            first = out[0]
            if isinstance(first, bytes):
                if batch and size + len(first) > PART:
                    break
                batch.append(first)
                size += len(first)
            elif batch:
                break
            elif (data := next(first, None)) is not None:
                return data
            out.popleft()
        return b"".join(batch)

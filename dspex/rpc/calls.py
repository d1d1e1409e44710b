"""The ways in: unary calls, the stream of one session, and the Link that carries everything."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from dspex import errors, wire
from dspex.commits import Receipt
from dspex.rpc import messages, moves, requests, status
from dspex.rpc.answers import whole
from dspex.rpc.auth import ANYONE, Caller, Gate
from dspex.rpc.extra import SERVICE, grpc, pb
from dspex.rpc.hubs import Hub
from dspex.rpc.outbox import Outbox
from dspex.rpc.service import Service

__all__ = ["PROTOCOL", "UNARY", "Calls", "abort"]

PROTOCOL = 1
"""What this server and this client speak."""

UNARY: dict[str, tuple[type[Any], Callable[..., Awaitable[Iterator[Any]]]]] = {
    "Open": (pb.OpenRequest, Service.open),
    "Commit": (pb.CommitRequest, Service.commit_unary),
    "Snapshot": (pb.SnapshotRequest, Service.snapshot),
    "History": (pb.HistoryRequest, Service.history),
    "ListSessions": (pb.ListRequest, Service.list_sessions),
    "DeleteSession": (pb.DeleteRequest, Service.delete_session),
}
"""The unary calls: what comes, and what answers."""

_SAME: dict[str, Callable[..., Awaitable[Iterator[Any]]]] = {
    "snapshot": Service.snapshot,
    "history": Service.history,
    "list_sessions": Service.list_sessions,
    "delete_session": Service.delete_session,
    "export": moves.export,
    "hold": moves.hold,
    "restore": moves.restore,
}
"""The calls of a Link that are answered by the same functions."""

_log = logging.getLogger("dspex.rpc")


class Calls:
    """Takes calls from grpc and gives their answers back."""

    def __init__(self, service: Service, gate: Gate) -> None:
        self.service = service
        self.gate = gate
        self.streams: dict[Outbox, None] = {}
        self.draining = False

    def handler(self) -> Any:
        """What grpc is to call. Messages stay bytes there: what cannot be read is answered here."""
        handlers: dict[str, Any] = {
            name: grpc.unary_unary_rpc_method_handler(partial(self._unary, name)) for name in UNARY
        }
        handlers["Subscribe"] = grpc.unary_stream_rpc_method_handler(self._subscribe)
        handlers["Link"] = grpc.stream_stream_rpc_method_handler(self._link)
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    # ---- unary -------------------------------------------------------------------------------------

    async def _unary(self, name: str, data: bytes, context: Any) -> bytes:
        made, answer = UNARY[name]
        try:
            caller = self.gate.caller(context.invocation_metadata(), context.peer())
            request = requests.parsed(made, data)
            self.service.admit(caller, request)
            return whole(await answer(self.service, caller, request))
        except Exception as error:
            await abort(context, status.refused(error))
            raise

    # ---- streams -----------------------------------------------------------------------------------

    def _stream(self, context: Any, caller: Caller) -> Outbox:
        if len(self.streams) >= self.service.limits.links:
            raise errors.LimitExceeded(
                f"this server has {self.service.limits.links} open streams, which is its limit.",
                limit=self.service.limits.links,
            )
        self.service.opens.take("opened streams")
        if self.draining:
            raise errors.StoreUnavailable("this server is stopping. Connect again.")
        outbox = Outbox(context, caller)
        self.streams[outbox] = None
        return outbox

    def _end(self, outbox: Outbox) -> None:
        outbox.close()
        self.streams.pop(outbox, None)

    async def _subscribe(self, data: bytes, context: Any) -> None:
        outbox: Outbox | None = None
        try:
            caller = self.gate.caller(context.invocation_metadata(), context.peer())
            request = requests.parsed(pb.SubscribeRequest, data)
            self.service.admit(caller, request)
            outbox = self._stream(context, caller)
            outbox.single = True
            await self.service.subscribe(caller, request, outbox)
            await outbox.ended
        except Exception as error:
            await abort(context, status.refused(error))
            raise
        finally:
            if outbox is not None:
                self._end(outbox)

    async def _link(self, frames: Any, context: Any) -> None:
        outbox: Outbox | None = None
        reader: asyncio.Task[None] | None = None
        try:
            caller = self.gate.caller(context.invocation_metadata(), context.peer())
            caller.must(ANYONE, "*")
            outbox = self._stream(context, caller)
            # A task of its own, so that it can be ended without ending the call, which grpc would log.
            reader = asyncio.create_task(_read(frames, _Link(self.service, caller, outbox), outbox))
            await asyncio.wait([reader, outbox.ended], return_when=asyncio.FIRST_COMPLETED)
            if reader.done():
                reader.result()
                outbox.stop()
                await outbox.ended
        except Exception as error:
            await abort(context, status.refused(error))
            raise
        finally:
            if reader is not None:
                reader.cancel()
            if outbox is not None:
                self._end(outbox)

    async def drain(self, grace: float) -> None:
        """Let what runs finish, tell all streams to go, and end them."""
        self.draining = True
        clock = asyncio.get_running_loop().time
        end = clock() + grace
        last = messages.item(0, going_away=pb.GoingAway())
        for outbox in list(self.streams):
            outbox.bookmarks()
            outbox.tell(last)
        # Nobody tells when an outbox is empty: this is the one who wants to know, once.
        while any(outbox.busy for outbox in self.streams) and clock() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        for outbox in list(self.streams):
            outbox.stop()
        while self.streams and clock() < end:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def tick(self) -> None:
        """Say to every stream that it is alive; end those that take nothing, or whose token has ended."""
        now = self.service.loop.time()
        timers = self.service.timers
        for outbox in list(self.streams):
            if outbox.caller.over:
                outbox.abandon()  # its client connects again, and is told why it may not
            elif outbox.began is None:
                outbox.bookmarks()
                if not outbox.sent:
                    outbox.tell(messages.item(0, pong=pb.Pong()))
            elif now - outbox.began > timers.stalled:
                _log.warning("a stream took nothing for %g s and was closed", timers.stalled)
                outbox.abandon()
        self.service.tidy()


async def _read(frames: Any, link: _Link, outbox: Outbox) -> None:
    async for data in frames:
        outbox.held = True
        try:
            link.size = len(data)
            for call in requests.parsed(pb.Up, data).calls:
                waiting = link.take(call)
                if waiting is not None:
                    outbox.flush()
                    await waiting
                    outbox.held = True
        finally:
            outbox.flush()
        if outbox.queued:  # behind what is on its way
            await outbox.emptied()
    await link.finish()


class _Link:
    """One Link, as the server sees it."""

    def __init__(self, service: Service, caller: Caller, outbox: Outbox) -> None:
        self._service = service
        self._caller = caller
        self._outbox = outbox
        self._running: set[asyncio.Future[Any]] = set()
        self._greeted = False
        self.size = 0
        """Bytes of what is being read."""

    def take(self, call: pb.Call) -> Awaitable[None] | None:
        """Answer *call*, now or by what is returned."""
        what = call.WhichOneof("what")
        try:
            self._check(call, what)
            request = getattr(call, what)
            if what == "commit" and (hub := self._watched(request.session)) is not None:
                self._caller.must("set", request.session)
                return self._commit(call.id, hub, request)
            self._service.admit(self._caller, request)
            if what == "commit":
                return self._later(call.id, "commit", Service.commit_unary, request)
            if what in _SAME:
                return self._later(call.id, what, _SAME[what], request)
            waiting: Awaitable[None] | None = getattr(self, f"_{what}")(call.id, request)
            return waiting
        except Exception as error:
            self._refuse(call.id, error)
            return None

    def _watched(self, session: str) -> Hub | None:
        hub = self._service.hubs.get(session)
        return hub if hub is not None and hub in self._outbox.sent else None

    def _check(self, call: pb.Call, what: str | None) -> None:
        if what is None or not call.id:
            raise errors.InvalidValue.expecting("a call with an id", f"id {call.id}, {what}").at("call")
        if not self._greeted and what != "hello":
            raise errors.InvalidValue.expecting("hello", what).at("the first call of a Link")

    async def finish(self) -> None:
        """Wait for what was asked for."""
        if self._running:
            await asyncio.wait(self._running)
        await self._outbox.emptied()

    def _refuse(self, id: int, error: Exception) -> None:
        self._outbox.tell(messages.item(id, error=wire.pack_error(status.refused(error))))

    # ---- commits -----------------------------------------------------------------------------------

    def _commit(self, id: int, hub: Hub, request: pb.CommitRequest) -> Awaitable[None] | None:
        service = self._service
        if not hub.ledger.blocking:
            hub.answering = True
            try:
                receipt = service.commit(hub, request, self.size)
            finally:
                hub.answering = False
            outbox = self._outbox
            if outbox.sent[hub] == receipt.rev - 1 and receipt.changes and hub.alone(receipt.rev):
                outbox.sent[hub] = receipt.rev
                outbox.tell(messages.own_reply(id, receipt.rev, receipt.changes[0].time))
            else:
                self._answer_commit(id, hub, receipt)
            return None
        running = service.committing(hub, request, self.size)
        self._running.add(running)
        running.add_done_callback(partial(self._committed, id, hub))
        return self._room()

    def _room(self) -> Awaitable[None] | None:
        if len(self._running) < self._service.limits.in_flight:
            return None
        return self._wait()

    async def _wait(self) -> None:
        await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)

    def _committed(self, id: int, hub: Hub, running: asyncio.Future[Receipt]) -> None:
        self._running.discard(running)
        if running.cancelled():
            return
        error = running.exception()
        if isinstance(error, Exception):
            self._refuse(id, error)
        elif error is None:
            self._answer_commit(id, hub, running.result())

    def _answer_commit(self, id: int, hub: Hub, receipt: Receipt) -> None:
        outbox = self._outbox
        hub.pump()
        rev = receipt.rev
        sent = outbox.sent.get(hub)
        if sent is not None and receipt.changes and sent < rev:
            # The one who committed knows what: it gets the revision in the place of the event.
            outbox.catch_up(hub, rev - 1)
            if outbox.sent[hub] == rev - 1:
                outbox.sent[hub] = rev
                outbox.tell(messages.own_reply(id, rev, receipt.changes[0].time))
                return
        elif sent is not None and sent < rev:
            outbox.catch_up(hub, rev)
        replies = messages.replies_with_changes(hub.ledger.schema, receipt)
        outbox.tell(messages.item(id, commit=reply) for reply in replies)

    # ---- the other calls ---------------------------------------------------------------------------

    def _later(
        self, id: int, what: str, answer: Callable[..., Awaitable[Iterator[Any]]], request: Any
    ) -> Awaitable[None] | None:
        async def run() -> None:
            try:
                replies = await answer(self._service, self._caller, request)
            except Exception as error:
                self._refuse(id, error)
                return
            self._outbox.tell(messages.item(id, **{what: reply}) for reply in replies)

        task = asyncio.ensure_future(run())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return self._room()

    def _hello(self, id: int, request: pb.Hello) -> None:
        if request.protocol != PROTOCOL:
            raise errors.InvalidValue.expecting(f"protocol {PROTOCOL}", str(request.protocol)).at("hello")
        self._greeted = True
        _log.debug("a Link of %s", errors.shown(request.client, 80))
        welcome = pb.Welcome(
            protocol=PROTOCOL,
            server="dspex",
            bookmark_seconds=self._service.timers.bookmark,
        )
        self._outbox.tell(messages.item(id, welcome=welcome))

    async def _subscribe(self, id: int, request: pb.SubscribeRequest) -> None:
        try:
            await self._service.subscribe(self._caller, request, self._outbox, id)
        except Exception as error:
            self._refuse(id, error)

    def _leave(self, id: int, request: pb.Leave) -> None:
        hub = self._watched(request.session)
        if hub is not None:
            self._outbox.forget(hub)
        self._outbox.tell(messages.item(id, left=pb.Left()))

    def _ping(self, id: int, request: pb.Ping) -> None:
        outbox = self._outbox
        hubs = list(outbox.sent)
        if request.session:
            watched = self._watched(request.session)
            if watched is None:
                raise errors.UnknownSession(
                    f"session '{request.session}' is not watched here.", session=request.session
                )
            hubs = [watched]
        for hub in hubs:
            hub.pump()
            outbox.catch_up(hub, hub.rev)
        outbox.tell(messages.item(id, pong=pb.Pong()))


async def abort(context: Any, error: errors.DspexError) -> None:
    """End the call of *context* with *error*."""
    if not context.done() and not context.cancelled():
        packed = wire.pack_error(error)
        if len(packed) > 6_000:  # metadata is small, and the sentence is what counts
            packed = wire.pack_error(type(error)(error.message[:1_000]))
        details = error.message.encode("ascii", "backslashreplace").decode()[:1_000]
        await context.abort(status.status_of(error), details, ((status.TRAILER, packed),))

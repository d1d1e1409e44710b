"""Running programs for clients of a state service: `Run` and `RunStream`, on both ends."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

import attrs

from dspex import deadlines, errors, telemetry, wire
from dspex.pool.base import BasePool
from dspex.pool.calls import AsyncStream, Call
from dspex.pool.failures import pack_failure, unpack_failure
from dspex.pool.values import DESCRIBED, Values, values_of
from dspex.rpc import requests, status
from dspex.rpc._generated import programs_pb2 as pb
from dspex.rpc.address import Address
from dspex.rpc.calls import Calls, abort
from dspex.rpc.extra import SERVICE, DecodeError, grpc
from dspex.rpc.server import Server, serve
from dspex.session import Session
from dspex.stores import Store, open_store
from dspex.stores.base import check_session_id

__all__ = ["Programs", "RemotePrograms", "serve_programs"]

SESSIONS = 256
"""Sessions that are kept open for calls; more only while calls run in them."""


class _AsIs(Values):
    """What came in bytes goes in bytes."""

    def unpack(self, data: bytes) -> bytes:
        return data


_AS_IS = _AsIs()


@attrs.define(eq=False)
class _Open:
    """A session that is kept open."""

    session: Session
    calls: int = 0
    """That were begun in it, and have not ended."""


class Programs:
    """
    The server's end: what a `Server` is given as one of `more`.

    Args:
        store: The store that the server serves. pool: Who runs the programs.
    """

    def __init__(self, store: Store, pool: BasePool) -> None:
        self._store = store
        self._pool = pool
        self._sessions: OrderedDict[str, _Open] = OrderedDict()
        """Those that were used last, at the end."""
        self._lock = threading.Lock()

    def __call__(self, calls: Calls) -> Any:
        """The handler of both calls."""
        handlers: dict[str, Any] = {
            "Run": grpc.unary_unary_rpc_method_handler(partial(self._run, calls)),
            "RunStream": grpc.unary_stream_rpc_method_handler(partial(self._stream, calls)),
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def _run(self, calls: Calls, data: bytes, context: Any) -> bytes:
        call = await self._begun(calls, data, context)
        try:
            return _reply(output=await asyncio.wrap_future(call))
        except Exception as error:
            return await _failed(error, context)

    async def _stream(self, calls: Calls, data: bytes, context: Any) -> AsyncIterator[bytes]:
        made: list[AsyncStream] = []
        try:
            await self._begun(
                calls,
                data,
                context,
                window=self._pool.settings.pieces,
                prepare=lambda call: made.append(AsyncStream(call)),
            )
            try:
                async for piece in made[0]:
                    yield _reply(output=piece)
            except Exception as error:
                yield await _failed(error, context)
        finally:
            for stream in made:
                await stream.aclose()

    async def _begun(self, calls: Calls, data: bytes, context: Any, **how: Any) -> Call:
        """The call that is asked for, by somebody who may; else it is refused, in the words of all calls."""
        try:
            caller = calls.gate.caller(context.invocation_metadata(), context.peer())
            request = requests.parsed(pb.RunRequest, data)
            # A program may do all that its caller could do; without a session it takes the server's time.
            caller.must("set", request.session or "*")
            name = self._pool.serves(request.program)
            begin: Callable[..., Call] = partial(
                self._pool.begin_packed,
                name,
                request.inputs,
                _AS_IS,
                deadline=request.seconds if request.HasField("seconds") else None,
                pin=request.pin,
                idempotent=request.idempotent,
                **how,
            )
            if telemetry.active is not None:
                begin = telemetry.active.within(_words(context.invocation_metadata()), begin)
            if not request.session:
                return begin()
            check_session_id(request.session)
            await calls.service.hub(request.session, create=True, caller=caller)  # within its limits
            return await self._begun_in(request.session, begin)
        except Exception as error:
            await abort(context, status.refused(error))
            raise

    async def _begun_in(self, session_id: str, begin: Callable[..., Call]) -> Call:
        opening = asyncio.ensure_future(asyncio.to_thread(self._opened, session_id))
        try:
            opened = await asyncio.shield(opening)
        except asyncio.CancelledError:  # who asked has gone
            opening.add_done_callback(self._unwanted)
            raise
        try:
            call = begin(session=opened.session)
        except BaseException:
            self._left(opened)
            raise
        call.when_done(lambda: self._left(opened))
        return call

    def _unwanted(self, opening: asyncio.Future[_Open]) -> None:
        if opening.exception() is None:
            self._left(opening.result())

    def _opened(self, session_id: str) -> _Open:
        """The session of that id, with one call more."""
        with self._lock:
            opened = self._sessions.pop(session_id, None)
            if opened is not None and _has_ended(opened.session):
                opened.session.close()
                opened = None
            if opened is None:
                opened = _Open(Session(session_id, store=self._store, source="run"))
                self._pool.lend(opened.session)
            opened.calls += 1
            self._sessions[session_id] = opened
            if (beyond := len(self._sessions) - SESSIONS) > 0:
                unused = [key for key, one in self._sessions.items() if not one.calls]
                for key in unused[:beyond]:
                    self._sessions.pop(key).session.close()
        return opened

    def _left(self, opened: _Open) -> None:
        with self._lock:
            opened.calls -= 1

    def close(self) -> None:
        """Let go of the sessions."""
        for opened in self._sessions.values():
            opened.session.close()


def _has_ended(session: Session) -> bool:
    """Whether it was deleted, and is perhaps made again, or was moved away."""
    try:
        session.snapshot()
    except errors.SessionClosed:
        return True
    return False


def _words(metadata: Any) -> dict[str, str]:
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def _reply(**what: bytes) -> bytes:
    made: bytes = pb.RunReply(**what).SerializeToString()
    return made


async def _failed(error: Exception, context: Any) -> bytes:
    """What a program raised, in a reply; what dspex refuses, as for every other call."""
    if isinstance(error, errors.DspexError) and not isinstance(error, errors.ProgramError):
        await abort(context, error)
    return _reply(failure=wire.pack_plain(pack_failure(error, "the server")))


def serve_programs(
    store: Store | str,
    pool: BasePool,
    listen: str | None = None,
    *,
    grace: float = 30.0,
    ready: Callable[[Server], object] | None = None,
    **settings: Any,
) -> None:
    """
    Serve *store*, and run programs beside it, until SIGTERM or SIGINT; then let what runs finish within
    *grace* s.

    Clients may come when the workers of *pool* are ready; it is closed at the end. *settings* are those of
    `dspex.rpc.serve`.

    Raises:
        WorkerLost: A worker cannot start. StoreUnavailable, PermissionDenied: As for `dspex.rpc.serve`.
    """
    deadlines.check_seconds(grace, "grace")
    opened = open_store(store)
    programs = Programs(opened, pool)
    try:
        pool.wait_ready()
        serve(opened, listen, grace=grace, ready=ready, more=(programs,), stopping=pool.drain, **settings)
    finally:
        programs.close()
        pool.close()
        if opened is not store:
            opened.close()


class RemotePrograms:
    """
    The client's end: runs programs at the server of a URL, `grpc://…` or `grpc+unix://…`.

    Args:
        url: Where it is; see `docs/remote.md`. token: What `?token-file=` would have.
    """

    def __init__(self, url: str, *, token: str | None = None) -> None:
        self._address = Address.parse(url, token=token)
        self._channel = self._address.channel()

    def run(
        self,
        program: Any,
        *inputs: Any,
        session: str = "",
        pin: bool = False,
        timeout: float | None = None,
        **named: Any,
    ) -> Any:
        """
        What *program*, a class or its name, returns there, in the session of that id. Of a program that is
        named, instances come as mappings, and members of enums by name.

        Raises:
            What it raises, as itself if it is an error of dspex or of Python, else as `ProgramError`.
        """
        request, values = self._request(program, inputs, named, session=session, pin=pin, seconds=timeout)
        call: Any = self._channel.unary_unary(f"/{SERVICE}/Run")
        try:
            data = call(request, metadata=self._metadata(), timeout=_longer(timeout))
        except grpc.RpcError as error:
            raise status.from_call(error, self._address.shown) from None
        return _answer(data, values)

    def stream(
        self,
        program: Any,
        *inputs: Any,
        session: str = "",
        pin: bool = False,
        timeout: float | None = None,
        **named: Any,
    ) -> Iterator[Any]:
        """The pieces that it yields, as they come."""
        request, values = self._request(program, inputs, named, session=session, pin=pin, seconds=timeout)
        call: Any = self._channel.unary_stream(f"/{SERVICE}/RunStream")
        pieces = call(request, metadata=self._metadata(), timeout=_longer(timeout))
        try:
            for data in pieces:
                yield _answer(data, values)
        except grpc.RpcError as error:
            raise status.from_call(error, self._address.shown) from None
        finally:
            pieces.cancel()

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        carrier = {} if telemetry.active is None else telemetry.active.carrier()
        return (*self._address.metadata, *carrier.items())

    @staticmethod
    def _request(
        program: Any, inputs: tuple[Any, ...], named: Mapping[str, Any], **how: Any
    ) -> tuple[bytes, Values]:
        from dspex.pool.programs import name_of

        if how["seconds"] is not None:
            deadlines.check_seconds(how["seconds"], "timeout")
        values = DESCRIBED if isinstance(program, str) else values_of(program)
        packed = values.pack_inputs(inputs, named)
        request = pb.RunRequest(program=name_of(program), inputs=packed, **how)
        return request.SerializeToString(), values

    def close(self) -> None:
        """Let go of the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _longer(timeout: float | None) -> float | None:
    """The server is to say that the time is over; this end only if that does not come."""
    return None if timeout is None else timeout + 5.0


def _answer(data: bytes, values: Values) -> Any:
    try:
        reply = pb.RunReply.FromString(data)  # a newer server may say more
    except DecodeError:
        raise errors.StoreUnavailable(
            f"the server answered with {len(data)} bytes that are no answer to a run. Ask one of dspex."
        ) from None
    if reply.WhichOneof("what") == "failure":
        raise unpack_failure(wire.unpack_plain(reply.failure), imports=False)
    return values.unpack(reply.output)

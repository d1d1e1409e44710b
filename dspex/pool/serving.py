"""Running programs for clients of a state service: `Run` and `RunStream`, on both ends."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

from dspex import deadlines, errors, telemetry, wire
from dspex.pool.base import BasePool
from dspex.pool.calls import AsyncStream, Call
from dspex.pool.failures import pack_failure, unpack_failure
from dspex.pool.values import DESCRIBED, Values, values_of
from dspex.rpc import requests, status
from dspex.rpc._generated import programs_pb2 as pb
from dspex.rpc.address import Address
from dspex.rpc.auth import Caller, Gate
from dspex.rpc.extra import SERVICE, grpc
from dspex.rpc.server import Server, serve
from dspex.session import Session
from dspex.stores import Store, open_store

__all__ = ["Programs", "RemotePrograms", "serve_programs"]

SESSIONS = 256
"""Sessions that are kept open for calls."""


class _AsIs(Values):
    """What came in bytes goes in bytes."""

    def unpack(self, data: bytes) -> bytes:
        return data


_AS_IS = _AsIs()


class Programs:
    """
    The server's end: what a `Server` is given as one of `more`.

    Args:
        store: The store that the server serves. pool: Who runs the programs.
    """

    def __init__(self, store: Store, pool: BasePool) -> None:
        self._store = store
        self._pool = pool
        self._sessions: OrderedDict[str, Session] = OrderedDict()
        """Those that were used last, at the end."""
        self._lock = threading.Lock()

    def __call__(self, gate: Gate) -> Any:
        """The handler of both calls."""
        handlers: dict[str, Any] = {
            "Run": grpc.unary_unary_rpc_method_handler(partial(self._run, gate)),
            "RunStream": grpc.unary_stream_rpc_method_handler(partial(self._stream, gate)),
        }
        return grpc.method_handlers_generic_handler(SERVICE, handlers)

    async def _run(self, gate: Gate, data: bytes, context: Any) -> bytes:
        try:
            begin = await self._prepared(gate, data, context)
            return _reply(output=await asyncio.wrap_future(begin()))
        except Exception as error:
            return await _refused(error, context)

    async def _stream(self, gate: Gate, data: bytes, context: Any) -> AsyncIterator[bytes]:
        made: list[AsyncStream] = []
        try:
            begin = await self._prepared(gate, data, context)
            begin(
                window=self._pool.settings.pieces,
                prepare=lambda call: made.append(AsyncStream(call)),
            )
            async for piece in made[0]:
                yield _reply(output=piece)
        except Exception as error:
            yield await _refused(error, context)
        finally:
            for stream in made:
                await stream.aclose()

    async def _prepared(self, gate: Gate, data: bytes, context: Any) -> Callable[..., Call]:
        """The call that is asked for, by somebody who may, ready to begin."""
        caller = gate.caller(context.invocation_metadata(), context.peer())
        request = requests.parsed(pb.RunRequest, data)
        session = await asyncio.to_thread(self._session, caller, request.session)
        begin = partial(
            self._pool.begin_packed,
            self._pool.serves(request.program),
            request.inputs,
            _AS_IS,
            session=session,
            deadline=request.seconds if request.HasField("seconds") else None,
            pin=request.pin,
            idempotent=request.idempotent,
        )
        if telemetry.active is None:
            return begin
        return telemetry.active.within(_words(context.invocation_metadata()), begin)

    def _session(self, caller: Caller, session_id: str) -> Session | None:
        # A program may do all that its caller could do; without a session it takes the server's time.
        caller.must("set", session_id or "*")
        if not session_id:
            return None
        with self._lock:
            session = self._sessions.pop(session_id, None)
            if session is not None and _has_ended(session):
                session.close()
                session = None
            if session is None:
                session = Session(session_id, store=self._store, source="run")
                self._pool.lend(session)
            self._sessions[session_id] = session
            while len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)[1].close()
        return session

    def close(self) -> None:
        """Let go of the sessions."""
        for session in self._sessions.values():
            session.close()


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


async def _refused(error: Exception, context: Any) -> bytes:
    """What a program raised, in a reply; what dspex refuses, as for every other call."""
    if isinstance(error, errors.DspexError) and not isinstance(error, errors.ProgramError):
        await context.abort(
            status.status_of(error),
            error.message.encode("ascii", "backslashreplace").decode()[:1_000],
            ((status.TRAILER, wire.pack_error(error)),),
        )
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
        packed = values.pack([list(inputs), dict(named)], "inputs")
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
    reply = requests.parsed(pb.RunReply, data)
    if reply.WhichOneof("what") == "failure":
        raise unpack_failure(wire.unpack_plain(reply.failure), imports=False)
    return values.unpack(reply.output)

"""Running programs for clients of a state service: `Run` and `RunStream`, on both ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from functools import partial
from typing import Any, Self

from dspex import errors, telemetry, wire
from dspex.pool.base import BasePool
from dspex.pool.calls import AsyncStream, Call
from dspex.pool.failures import pack_failure, unpack_failure
from dspex.pool.values import Values, values_of
from dspex.rpc import requests, status
from dspex.rpc._generated import programs_pb2 as pb
from dspex.rpc.address import Address
from dspex.rpc.auth import Caller, Gate
from dspex.rpc.extra import SERVICE, grpc
from dspex.rpc.server import Server, serve
from dspex.session import Session
from dspex.stores import Store

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
        session = self._sessions.get(session_id)
        if session is None or session.closed:
            session = self._sessions[session_id] = Session(session_id, store=self._store, source="run")
            self._pool.lend(session)
            while len(self._sessions) > SESSIONS:
                self._sessions.popitem(last=False)[1].close()
        return session

    def close(self) -> None:
        """Let go of the sessions."""
        for session in self._sessions.values():
            session.close()


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
    store: Store,
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

    What `dspex serve --program package.module:ResearchAgent --workers 2` does. *settings* are those of
    `dspex.rpc.serve`.
    """
    programs = Programs(store, pool)
    try:
        serve(store, listen, grace=grace, ready=ready, more=(programs,), stopping=pool.drain, **settings)
    finally:
        programs.close()
        pool.close()


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
        self, program: Any, *inputs: Any, session: str = "", timeout: float | None = None, **named: Any
    ) -> Any:
        """
        What *program*, a class or its name, returns there, in the session of that id.

        Raises:
            What it raises, as itself if it is an error of dspex or of Python, else as `ProgramError`.
        """
        request, values = self._request(program, inputs, named, session, timeout)
        call: Any = self._channel.unary_unary(f"/{SERVICE}/Run")
        try:
            data = call(request, metadata=self._metadata(), timeout=_longer(timeout))
        except grpc.RpcError as error:
            raise status.from_call(error, self._address.shown) from None
        return _answer(data, values)

    def stream(
        self, program: Any, *inputs: Any, session: str = "", timeout: float | None = None, **named: Any
    ) -> Iterator[Any]:
        """The pieces that it yields, as they come."""
        request, values = self._request(program, inputs, named, session, timeout)
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

    def _request(
        self,
        program: Any,
        inputs: tuple[Any, ...],
        named: Mapping[str, Any],
        session: str,
        timeout: float | None,
    ) -> tuple[bytes, Values]:
        from dspex.pool.programs import name_of
        from dspex.pool.values import PLAIN

        values = PLAIN if isinstance(program, str) else values_of(program)
        packed = values.pack([list(inputs), dict(named)], "inputs")
        request = pb.RunRequest(program=name_of(program), inputs=packed, session=session, seconds=timeout)
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


def run_once(
    program: str,
    inputs: tuple[Any, ...],
    *,
    session: str | None = None,
    store: str = "memory://",
    server: str | None = None,
    token: str | None = None,
    changes: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> Iterator[Any]:
    """
    The pieces that *program* gives for *inputs*, here or at a *server*: what `dspex run` prints.

    Args:
        program: `package.module:Class`.
        session: The id of a session; a private one without it.
        store: Where the session is, for a run in this process.
        server: The URL of a server that runs the program, in its own sessions.
        changes: Values as typed, by name, set in one commit before the run.

    Raises:
        UnknownVariable, InvalidValue: One of *changes* is none of the program's. UnknownProgram. What it
        raises.
    """
    from dspex.pool.programs import load

    typed = dict(changes or {})
    if server is None:
        cls: Any = load(program)
        with contextlib.closing(Session(session, store=store, source="dspex run")) as opened:
            cls.bind(opened)
            _set_typed(opened, typed)
            yield from cls.stream(*inputs, session=opened, timeout=timeout)
        return
    if typed:
        if session is None:
            raise errors.InvalidValue.expecting("given with --session", "values for a private session").at(
                "--set"
            )
        with Session(session, store=server, source="dspex run") as opened:
            _set_typed(opened, typed)
    with RemotePrograms(server, token=token) as there:
        yield from there.stream(program, *inputs, session=session or "", timeout=timeout)


def _set_typed(session: Session, typed: Mapping[str, str]) -> None:
    if not typed:
        return
    known = session.variables
    for name in typed:
        if name not in known:
            raise errors.unknown_variable(f"session '{session.id}'", name, known)
    session.update({name: known[name].kind.parse(text) for name, text in typed.items()})

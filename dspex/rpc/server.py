"""A store that other processes can reach."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from types import FrameType
from typing import Any, Self

from dspex import errors
from dspex.rpc.auth import Gate, Token
from dspex.rpc.calls import Calls
from dspex.rpc.extra import SERVICE, grpc
from dspex.rpc.limits import MESSAGE, Limits, Timers
from dspex.rpc.listening import PREFIX, Tls, check_listen, private_socket
from dspex.rpc.loops import in_loop
from dspex.rpc.service import Service
from dspex.stores import Store, open_store

__all__ = ["Server", "serve"]

THREADS = 8
"""How many calls wait for a disk at the same time."""

OPTIONS = (
    ("grpc.max_receive_message_length", MESSAGE),
    ("grpc.max_send_message_length", 2 * MESSAGE),
    ("grpc.max_concurrent_streams", 1024),
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.server.max_pending_requests", 5000),
    ("grpc.server.max_pending_requests_hard_limit", 6000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.so_reuseport", 0),
)

_log = logging.getLogger("dspex.rpc")


class Server:
    """
    Serves *store* at an address, in a thread of its own, until `stop`.

    Args:
        store: What is served: a `Store`, or its URL.
        listen: `unix:///path` in a directory that only its owner may enter, or `host:port`, which needs *tls*
            and *tokens*. Without one a private socket is made.
        tokens: Who may do what; without any, whoever reaches the socket may do all.
        tls: The certificate of the server.
        limits: How much clients may do.
        timers: How time is kept.
        more: Make handlers of further calls of the service, given those that there are.
    """

    def __init__(
        self,
        store: Store | str,
        listen: str | None = None,
        *,
        tokens: Sequence[Token] = (),
        tls: Tls | None = None,
        limits: Limits = Limits(),  # noqa: B008 - frozen
        timers: Timers = Timers(),  # noqa: B008 - frozen
        more: Sequence[Callable[[Calls], Any]] = (),
    ) -> None:
        self._more = tuple(more)
        self.store = _servable(open_store(store))
        self._own_socket = listen is None
        self.listen = private_socket() if listen is None else listen
        self._tokens = tuple(tokens)
        self._tls = tls
        self._limits = limits
        self._timers = timers
        self._bind = check_listen(self.listen, tls=tls is not None, tokens=bool(tokens))
        self._server: Any = None
        self._calls: Calls | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._health: Any = None

    @property
    def url(self) -> str:
        """What a client gives as its store; the token and the certificate come in addition."""
        if self.listen.startswith(PREFIX):
            return f"grpc+{self.listen}"
        return f"grpc://{self.listen}"

    def start(self) -> Self:
        """
        Begin to serve. A server that does already goes on.

        Raises:
            StoreUnavailable: The address cannot be had.
        """
        if self._server is None:
            in_loop(self._start())
        return self

    async def _start(self) -> None:
        from grpc_health.v1 import health, health_pb2, health_pb2_grpc

        server = grpc.aio.server(options=OPTIONS)
        service = Service(self.store, self._limits, self._timers, THREADS)
        calls = Calls(service, Gate(self._tokens, self._limits.failures))
        server.add_generic_rpc_handlers((calls.handler(), *(make(calls) for make in self._more)))
        self._health = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        for name in ("", SERVICE):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        try:
            if self._tls is None:
                port = server.add_insecure_port(self._bind)
            else:
                pair = (self._tls.key.read_bytes(), self._tls.certificate.read_bytes())
                port = server.add_secure_port(self._bind, grpc.ssl_server_credentials([pair]))
        except RuntimeError as error:
            raise errors.StoreUnavailable(
                f"cannot listen on {self.listen}: {error}", address=self.listen
            ) from None
        await server.start()
        if self.listen.endswith(":0"):
            self.listen = f"{self.listen[:-1]}{port}"
        self._server, self._calls = server, calls
        self._ticking = asyncio.create_task(self._tick(calls))

    async def _tick(self, calls: Calls) -> None:
        while True:
            await asyncio.sleep(self._timers.bookmark)
            try:
                calls.tick()
            except Exception:
                _log.exception("looking after the sessions failed")

    def stop(self, grace: float = 5.0) -> None:
        """Let what runs finish within *grace* seconds, tell the clients to go on elsewhere, and end."""
        if self._server is not None:
            in_loop(self._stop(grace))

    async def _stop(self, grace: float) -> None:
        server, calls = self._server, self._calls
        self._server = None
        if self._ticking is not None:
            self._ticking.cancel()
        await self._health.enter_graceful_shutdown()
        if calls is not None:
            await calls.drain(grace)
        await server.stop(grace)
        if calls is not None:
            await calls.service.end()
        if self._own_socket:
            path = Path(self.listen.removeprefix(PREFIX))
            path.unlink(missing_ok=True)  # noqa: ASYNC240 - the last thing done for this server
            path.parent.rmdir()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._server is None else "serving"
        return f"<Server {state} {self.url}>"


def _servable(store: Store) -> Store:
    from dspex.rpc.client import RemoteStore

    if isinstance(store, RemoteStore):
        raise errors.InvalidValue.expecting(
            "a store of this process", f"{store!r}, which is served already"
        ).at("what is served")
    return store


def serve(
    store: Store | str,
    listen: str | None = None,
    *,
    tokens: Sequence[Token] = (),
    tls: Tls | None = None,
    limits: Limits = Limits(),  # noqa: B008 - frozen
    timers: Timers = Timers(),  # noqa: B008 - frozen
    grace: float = 5.0,
    ready: Callable[[Server], object] | None = None,
    more: Sequence[Callable[[Calls], Any]] = (),
    stopping: Callable[[float], object] | None = None,
) -> None:
    """
    Serve *store* until the process is told to end by SIGTERM or SIGINT; then finish what runs.

    Args:
        store: As for `Server`, like *listen*, *tokens*, *tls*, *limits* and *timers*.
        grace: Seconds for what runs.
        ready: Called when clients may come.
        more: As for `Server`.
        stopping: Called with *grace* before the server stops: what has to end first.
    """
    stopped: SimpleQueue[int] = SimpleQueue()  # an Event could be locked where the signal comes in

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.put(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    owned = isinstance(store, str)
    server = Server(store, listen, tokens=tokens, tls=tls, limits=limits, timers=timers, more=more)
    try:
        server.start()
        if ready is not None:
            ready(server)
        stopped.get()
    finally:
        if stopping is not None:
            stopping(grace)
        server.stop(grace)
        if owned:
            server.store.close()
        for number, handler in before.items():
            signal.signal(number, handler)

"""Sessions that come to a server, or leave it, as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

import attrs

from dspex import errors
from dspex.rpc import framing
from dspex.rpc.extra import pb
from dspex.rpc.requests import declaration_of
from dspex.stores import refusals
from dspex.stores.assembling import unpacked
from dspex.stores.base import Hold
from dspex.stores.export import Export
from dspex.stores.ledger import EMPTY
from dspex.stores.pieces import digest, pieces_of

if TYPE_CHECKING:
    from dspex.rpc.auth import Caller
    from dspex.rpc.service import Service

__all__ = ["Moves", "export", "hold", "restore"]

SHORTEST = 16
"""Characters of the token of a hold."""


@attrs.define
class _Arriving:
    """What has come of a session so far."""

    session: str
    due: float
    pieces: list[bytes] = attrs.Factory(list)
    parts: int = 0
    size: int = 0


@attrs.frozen
class _Held:
    session: str
    hold: Hold
    due: float
    digest: str = ""
    """Of what was restored."""


class Moves:
    """The sessions of one server that come and go. A token names each: what is asked twice is done once."""

    def __init__(self) -> None:
        self.arriving: dict[str, _Arriving] = {}
        self.held: dict[str, _Held] = {}
        self._running: dict[str, asyncio.Future[Any]] = {}

    def overdue(self, now: float) -> list[Hold]:
        """The holds whose client has been away for too long; nobody keeps them any more."""
        for token in [token for token, one in self.arriving.items() if one.due < now]:
            del self.arriving[token]
        return [self.held.pop(token).hold for token, one in list(self.held.items()) if one.due < now]

    async def once(self, token: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """What *make* gives, which goes on when the caller does not, and that a second caller waits for."""
        running = self._running.get(token)
        if running is None:
            running = self._running[token] = asyncio.ensure_future(make())
            running.add_done_callback(lambda done: self._ran(token, done))
        return await asyncio.shield(running)

    def _ran(self, token: str, done: asyncio.Future[Any]) -> None:
        del self._running[token]
        if not done.cancelled():
            done.exception()  # whoever waits hears of it, if anybody does


def _token(service: Service, token: str) -> str:
    if not SHORTEST <= len(token) <= service.limits.words:
        raise errors.InvalidValue.expecting(
            f"{SHORTEST} to {service.limits.words} characters", f"{len(token)}"
        ).at("token")
    return token


async def export(service: Service, _caller: Caller, request: pb.ExportRequest) -> Iterator[pb.ExportReply]:
    """All that a session is."""
    hub = await service.hub(request.session)
    hub.used = service.loop.time()
    pieces = await service.in_thread(lambda: pieces_of(hub.ledger.export()))
    return (pb.ExportReply(pieces=part, more=more) for part, more in framing.parts(pieces))


# ---- leaving -------------------------------------------------------------------------------------------


async def hold(service: Service, caller: Caller, request: pb.HoldRequest) -> Iterator[pb.HoldReply]:
    """Hold a session, or do something with one that is held."""
    moves, session, token = service.moves, request.session, _token(service, request.token)
    if request.step == pb.STEP_HOLD:
        if token not in moves.held:
            await moves.once(token, lambda: _take(service, session, token))
    elif request.step == pb.STEP_FORWARD:
        await moves.once(token, lambda: _forward(service, request))
    elif request.step == pb.STEP_RELEASE:
        if held := _drop(moves, session, token):
            await service.in_thread(held.hold.release)
    elif request.step == pb.STEP_DROP:
        if held := _drop(moves, session, token, restored=True):
            await service.delete_session(caller, pb.DeleteRequest(session=held.session))
    else:
        raise errors.InvalidValue.expecting("one of those that the .proto names", f"{request.step}").at(
            "step"
        )
    return iter((pb.HoldReply(),))


def _drop(moves: Moves, session: str, token: str, *, restored: bool = False) -> _Held | None:
    held = moves.held.get(token)
    if held is None or held.session != session or (restored and not held.digest):
        return None
    return moves.held.pop(token)


async def _take(service: Service, session: str, token: str) -> None:
    hub = await service.hub(session)
    held = await service.in_thread(hub.ledger.hold)
    service.moves.held[token] = _Held(session, held, service.loop.time() + service.timers.hold)


async def _forward(service: Service, request: pb.HoldRequest) -> None:
    session, words = request.session, service.limits.words
    for field in ("url", "there"):
        if not 0 < len(getattr(request, field)) <= words:
            raise errors.InvalidValue.expecting(f"1 to {words} characters", "others").at(field, session)
    held = service.moves.held.get(request.token)
    if held is None or held.session != session:
        await service.hub(session)  # says where it is, if this was asked before
        raise refusals.not_held(session)
    await service.in_thread(held.hold.forward, request.url, request.there)
    service.moves.held.pop(request.token, None)
    hub = service.hubs.get(session)
    if hub is not None and hub.gone:
        service.drop(hub)


# ---- coming --------------------------------------------------------------------------------------------


async def restore(service: Service, _caller: Caller, request: pb.RestoreRequest) -> Iterator[pb.RestoreReply]:
    """Take one part of a session; make it when all have come."""
    moves, session, token = service.moves, request.session, _token(service, request.token)
    held = moves.held.get(token)
    if held is None or held.session != session:
        arriving = moves.arriving.get(token)
        if arriving is None and not request.part:
            _check_room(service)
            arriving = moves.arriving[token] = _Arriving(session, service.loop.time() + service.timers.hold)
        if arriving is None or arriving.session != session or arriving.parts < request.part:
            raise errors.StoreUnavailable(
                f"of session '{session}' not all parts have come before this one. Begin again.",
                session=session,
            )
        if arriving.parts == request.part:
            _add(service, arriving, request.pieces)
        if request.more:
            return iter((pb.RestoreReply(),))
        held = await moves.once(token, lambda: _make(service, token, arriving))
    return iter((pb.RestoreReply(digest=held.digest),))


def _check_room(service: Service) -> None:
    coming = {one.session for one in service.moves.arriving.values()}
    if len(service.hubs) + len(coming) >= service.limits.sessions:
        raise errors.LimitExceeded(
            f"this server has {service.limits.sessions} sessions, which is its limit. Delete some.",
            limit=service.limits.sessions,
        )


def _add(service: Service, arriving: _Arriving, pieces: Any) -> None:
    size = sum(map(len, pieces))
    limit = 2 * service.limits.session_bytes  # what is labelled, and the history, are not among its values
    everything = sum(one.size for one in service.moves.arriving.values())
    if arriving.size + size > limit or everything + size > service.limits.value_bytes:
        raise errors.LimitExceeded(
            f"session '{arriving.session}' takes more than the {limit} bytes that this server has for it.",
            limit=limit,
        )
    arriving.pieces += pieces
    arriving.size += size
    arriving.parts += 1


async def _make(service: Service, token: str, arriving: _Arriving) -> _Held:
    session = arriving.session
    del service.moves.arriving[token]
    export, made = await service.in_thread(_unpacked, arriving.pieces)
    service.check_fits(session, export)
    empty = service.hubs.get(session)
    if empty is not None and not (empty.links or empty.ledger.rev or empty.ledger.schema.declarations):
        service.drop(empty)
    hold = await service.in_thread(service.store.restore, session, export)
    try:
        await service.hub(session)
    except BaseException:
        await service.in_thread(service.store.delete, session)
        raise
    finally:
        await service.in_thread(hold.ledger.close)  # the hub has it now
    held = _Held(session, hold, service.loop.time() + service.timers.hold, made)
    service.moves.held[token] = held
    return held


def _unpacked(pieces: list[bytes]) -> tuple[Export, str]:
    made = unpacked(pieces, EMPTY, declaration_of)
    return made, digest(made)

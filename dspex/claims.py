"""Keeping others off some variables for a while: an optimizer's lock."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

import attrs

from dspex import errors
from dspex.commits import ClaimRequest, Commit, Receipt, Write

if TYPE_CHECKING:
    from dspex.changes import Change
    from dspex.session import Session

__all__ = ["Claim", "active_token", "request_of"]

_active: ContextVar[tuple[Claim, ...]] = ContextVar("dspex_claims", default=())


def active_token(session: Session) -> str | None:
    """The token of the innermost claim on *session* whose block this thread or task is in."""
    for claim in reversed(_active.get()):
        if claim.session is session:
            return claim.request.token
    return None


def request_of(session: Session, names: Iterable[str], owner: str, ttl: float) -> ClaimRequest:
    """The request for a claim, under the one whose block this is in, if any; each name once."""
    outer = active_token(session)
    token = os.urandom(16).hex()
    return ClaimRequest.checked(session.id, names, owner, token if outer is None else f"{outer}/{token}", ttl)


@attrs.define(eq=False, repr=False)
class Claim:
    """
    What `Session.claim` returns: the right to set some names, which nobody else has until it ends.

    Set through it, or in its `with` block, where every commit of this thread or task has the right. It ends
    with the block, with `release()`, or when its time is over.
    """

    session: Session
    request: ClaimRequest
    _entered: Token[tuple[Claim, ...]] | None = attrs.field(default=None, init=False)

    @property
    def names(self) -> tuple[str, ...]:
        """What is claimed."""
        return self.request.names

    @property
    def owner(self) -> str:
        """Who claimed it; others read this in their refusal."""
        return self.request.owner

    def set(
        self, name: str, value: Any, metadata: Mapping[str, Any] | None = None, *, source: str | None = None
    ) -> Change:
        """Set *name* with the right of this claim; the source is the claim's owner if not given."""
        return self.update({name: value}, metadata, source=source).changes[0]

    def update(
        self,
        values: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
    ) -> Receipt:
        """Set several names in one commit with the right of this claim."""
        writes = tuple(Write(name, value) for name, value in values.items())
        return self.session._commit(
            Commit(writes, source=source or self.owner, metadata=metadata, token=self.request.token)
        )

    async def aset(
        self, name: str, value: Any, metadata: Mapping[str, Any] | None = None, *, source: str | None = None
    ) -> Change:
        """`set`, awaited."""
        return await self.session._call(self.set, name, value, metadata, source=source)

    async def aupdate(
        self,
        values: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
    ) -> Receipt:
        """`update`, awaited."""
        return await self.session._call(self.update, values, metadata, source=source)

    def renew(self) -> None:
        """
        Start the time to live again.

        Raises:
            Claimed: It was over, and somebody else has claimed one of the names since.
        """
        self.session._commit(Commit(claim=self.request, token=self.request.token))

    async def arenew(self) -> None:
        """`renew`, awaited."""
        await self.session._call(self.renew)

    def release(self) -> None:
        """Let others set the names again."""
        self.session._commit(Commit(release=self.request.token))

    async def arelease(self) -> None:
        """`release`, awaited."""
        await self.session._call(self.release)

    def __repr__(self) -> str:
        names = ", ".join(map(repr, self.names))
        return f"<Claim on {names} by '{self.owner}' in session '{self.session.id}', {self.request.ttl:g} s>"

    def __enter__(self) -> Self:
        if self._entered is not None:
            raise errors.InvalidDeclaration(
                "the block of this claim is open already; make another one: session.claim(…)."
            )
        self._entered = _active.set((*_active.get(), self))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._leave()
        self._end(failed=kind is not None)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._leave()
        await self.session._call(self._end, failed=kind is not None)

    def _leave(self) -> None:
        if self._entered is not None:
            _active.reset(self._entered)
            self._entered = None

    def _end(self, *, failed: bool) -> None:
        if self.session.closed:
            return
        try:
            self.release()
        except errors.DspexError:
            if not failed:  # else what the block raised is what to hear of; the claim ends with its time
                raise

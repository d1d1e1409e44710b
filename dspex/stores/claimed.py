"""Which variables of a session are claimed, by whom and until when."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import NamedTuple, Self

from dspex import errors
from dspex.commits import ClaimRequest
from dspex.stores import refusals

__all__ = ["NESTING", "Claims", "Held", "OnHold"]

NESTING = 16
"""How many claims, each made under the one before, may be on one name."""


class Held(NamedTuple):
    """One claim on one name."""

    token: str
    owner: str
    until: float
    """When it is over, by the monotonic clock."""


class Claims(dict[str, tuple[Held, ...]]):
    """
    Claims by name. Used under the ledger's lock.

    A claim that is made in the block of another has a token which begins with that of the other, and may be
    on the same name. So those on one name are a chain from the outermost to the innermost; each has the right
    to set, and each end leaves the others.
    """

    def check(self, names: Iterable[str], token: str | None, session: str) -> None:
        """Refuse a commit that sets *names* under *token*, if another claim is on one of them."""
        for name in names:
            chain = self._held(name)
            if chain and not _related(token, chain[-1].token):
                owner, left = chain[-1].owner, chain[-1].until - time.monotonic()
                raise errors.Claimed(
                    f"'{name}' in session '{session}' is claimed by '{owner}' for another {left:.0f} s. "
                    "Wait, or ask its owner to release it. If you are the owner: claim.set(…), or set in its "
                    "block.",
                    name=name,
                    session=session,
                    owner=owner,
                )

    def check_claim(self, request: ClaimRequest, session: str) -> None:
        """Refuse *request*, if another claim is on one of its names, or too many that it was made under."""
        self.check(request.names, request.token, session)
        for name in request.names:
            others = [held for held in self.get(name, ()) if held.token != request.token]
            if len(others) >= NESTING:
                raise refusals.nested(session, name, NESTING)

    def take(self, request: ClaimRequest) -> None:
        """Let *request* hold its names from now on."""
        held = Held(request.token, request.owner, time.monotonic() + request.ttl)
        for name in request.names:
            self.add(name, held)

    def add(self, name: str, held: Held) -> None:
        """Let *held* be on *name*, in the place of the same claim before it was renewed."""
        chain = [one for one in self.get(name, ()) if one.token != held.token]
        self[name] = tuple(sorted((*chain, held), key=_depth))

    def release(self, token: str) -> None:
        """End the claim of *token*, if it is still one."""
        for name, chain in list(self.items()):
            self._keep(name, [held for held in chain if held.token != token])

    def listed(self) -> list[tuple[str, Held]]:
        """All that are not over, by name, the outermost first."""
        return [(name, held) for name in sorted(self) for held in self._held(name)]

    def copy(self) -> Self:
        """The same claims, to be changed apart from these."""
        return type(self)(self)

    def _held(self, name: str) -> tuple[Held, ...]:
        """The claims on *name* whose time is not over."""
        chain = self.get(name, ())
        now = time.monotonic()
        return self._keep(name, [held for held in chain if held.until > now]) if chain else chain

    def _keep(self, name: str, chain: Iterable[Held]) -> tuple[Held, ...]:
        if kept := tuple(chain):
            self[name] = kept
        else:
            del self[name]
        return kept


class OnHold(Claims):
    """The claims of a session that takes no commits; every commit comes by here anyway."""

    def __init__(self, claims: Claims) -> None:
        super().__init__(claims)
        self._process = os.getpid()

    def __bool__(self) -> bool:
        return True

    def check(self, names: Iterable[str], token: str | None, session: str) -> None:
        if os.getpid() == self._process:  # else who holds it is not in this process, and will never let go
            raise refusals.moving(session)
        super().check(names, token, session)


def _depth(held: Held) -> int:
    return len(held.token)


def _related(token: str | None, claimed: str) -> bool:
    """Whether *token* is that of the claim, or of one that was made under it, or that it was made under."""
    return token is not None and (
        token == claimed or token.startswith(f"{claimed}/") or claimed.startswith(f"{token}/")
    )

"""Which variables of a session are claimed, by whom and until when."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from dspex import errors
from dspex.commits import ClaimRequest

__all__ = ["Claims", "Held"]

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
                    "Wait, or ask its owner to release it.",
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
                raise errors.LimitExceeded(
                    f"claims on '{name}' in session '{session}' are nested {NESTING} deep: is this a loop?",
                    name=name,
                    session=session,
                    limit=NESTING,
                )

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


def _depth(held: Held) -> int:
    return len(held.token)


def _related(token: str | None, claimed: str) -> bool:
    """Whether *token* is that of the claim, or of one that was made under it, or that it was made under."""
    return token is not None and (
        token == claimed or token.startswith(f"{claimed}/") or claimed.startswith(f"{token}/")
    )

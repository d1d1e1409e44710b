"""Which variables of a session are claimed, by whom and until when."""

from __future__ import annotations

import time
from collections.abc import Iterable

from dspex import errors
from dspex.commits import ClaimRequest

__all__ = ["Claims"]


class Claims(dict[str, tuple[ClaimRequest, float]]):
    """Claims by name, each with its end by the monotonic clock. Used under the ledger's lock."""

    def check(self, names: Iterable[str], token: str | None, session: str) -> None:
        """Refuse a commit that sets *names* under *token*, if another claim is on one of them."""
        for name in names:
            request, until = self.get(name, (None, 0.0))
            if request is None or _covers(token, request.token):
                continue
            left = until - time.monotonic()
            if left <= 0:
                del self[name]
                continue
            raise errors.Claimed(
                f"'{name}' in session '{session}' is claimed by '{request.owner}' for another {left:.0f} s. "
                "Wait, or ask its owner to release it.",
                name=name,
                session=session,
                owner=request.owner,
            )

    def take(self, request: ClaimRequest) -> None:
        """Let *request* hold its names from now on."""
        held = (request, time.monotonic() + request.ttl)
        self.update(dict.fromkeys(request.names, held))

    def release(self, token: str) -> None:
        """End the claim of *token*, if it is still one."""
        for name in [name for name, (request, _) in self.items() if request.token == token]:
            del self[name]


def _covers(token: str | None, claimed: str) -> bool:
    """Whether *token* is that of the claim, or of one that was made under it."""
    return token is not None and (token == claimed or token.startswith(f"{claimed}/"))

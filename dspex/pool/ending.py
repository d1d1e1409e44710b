"""How the process of a worker has ended."""

from __future__ import annotations

import signal

import attrs

__all__ = ["Ending"]


@attrs.frozen
class Ending:
    """What the system says of the end of a process."""

    status: int | None
    """What it said itself, or minus the number of the signal that killed it; None where nobody knows."""

    def __str__(self) -> str:
        """The verb of a sentence."""
        if self.status is None:
            return "ended, and nobody knows how: its fork server had ended before"
        if self.status >= 0:
            return f"ended with status {self.status}"
        try:
            return f"was killed by {signal.Signals(-self.status).name}"
        except ValueError:
            return f"was killed by signal {-self.status}"

    @property
    def facts(self) -> dict[str, int | None]:
        """The same for the attributes of an error."""
        status = self.status
        if status is not None and status < 0:
            return {"exit_code": None, "signal": -status}
        return {"exit_code": status, "signal": None}

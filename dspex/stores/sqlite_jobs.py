"""What a SQLite store has to do, one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dspex.stores.groups import Job

if TYPE_CHECKING:
    from dspex.commits import Commit, Receipt
    from dspex.stores.base import Sink
    from dspex.stores.sqlite_ledger import SqliteLedger

__all__ = ["CommitJob", "Task"]


class CommitJob(Job):
    """One commit on its way, with all that could be made of it before its turn."""

    __slots__ = (
        "commit",
        "declared",
        "ledger",
        "metadata",
        "packed",
        "receipt",
        "sink",
        "twin",
        "values",
        "why",
    )

    def __init__(self, ledger: SqliteLedger, commit: Commit) -> None:
        super().__init__()
        self.ledger = ledger
        self.commit = commit
        self.values: Mapping[str, Any]
        self.metadata: Mapping[str, Any] | None
        self.packed: Mapping[str, bytes]
        """The values as bytes."""
        self.why: bytes | None
        """The metadata as bytes."""
        self.declared: Mapping[str, bytes]
        """The declarations as bytes."""
        self.receipt: Receipt | None = None
        self.twin: CommitJob | None = None
        """The commit of the same op in the same group, which is made instead."""
        self.sink: Sink | None = None

    @property
    def over(self) -> bool:
        """Whether it was done, or has failed."""
        return self.receipt is not None or self.error is not None


class Task(Job):
    """Something that needs the database for itself."""

    __slots__ = ("ran", "result", "run")

    alone = True

    def __init__(self, run: Callable[[], Any]) -> None:
        super().__init__()
        self.run = run
        self.ran = False
        self.result: Any = None

    @property
    def over(self) -> bool:
        """Whether it was done, or has failed."""
        return self.ran or self.error is not None

"""A whole session as data: what `Ledger.export` gives and `Store.restore` takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import attrs
import msgspec

from dspex.stores.base import new_epoch

if TYPE_CHECKING:
    from dspex.changes import Change
    from dspex.commits import Schema
    from dspex.records import Record, Revision, Snapshot
    from dspex.stores.claimed import Held

    R = TypeVar("R", bound=Record)

__all__ = ["Export", "in_epoch", "tag_of"]


@attrs.frozen(eq=False)
class Export:
    """All that a session is, at one revision."""

    schema: Schema
    revision: Revision
    created: float
    """Seconds since 1970-01-01 UTC."""
    records: Mapping[str, Record]
    """Of the variables that were ever set."""
    history: Sequence[Change]
    """The changes that are still known, oldest first."""
    start: int
    """Of the revisions after this one the history has every change."""
    tags: Mapping[str, Snapshot]
    claims: Sequence[tuple[str, Held]]
    """By name; of those on one name the outermost first."""

    def renewed(self, created: float) -> Export:
        """The same session as the beginning of another history, which counts on from here."""
        epoch = new_epoch()
        return attrs.evolve(
            self,
            revision=attrs.evolve(self.revision, epoch=epoch),
            created=created,
            records={name: in_epoch(record, epoch) for name, record in self.records.items()},
            history=[in_epoch(change, epoch) for change in self.history],
            tags={label: tag_of(at, at.session, epoch) for label, at in self.tags.items()},
        )


def in_epoch(record: R, epoch: str) -> R:
    """*record* as a part of the history *epoch*; what was never set belongs to none."""
    if record.epoch == epoch or not record.version:
        return record
    return msgspec.structs.replace(record, epoch=epoch)


def tag_of(at: Snapshot, session_id: str, epoch: str) -> Snapshot:
    """What a label of that session and history stands for."""
    return attrs.evolve(
        at,
        session=session_id,
        revision=attrs.evolve(at.revision, epoch=epoch),
        records={name: in_epoch(record, epoch) for name, record in at._records.items()},
    )

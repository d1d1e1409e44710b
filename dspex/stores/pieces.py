"""
An export as pieces: how it travels, and what both ends compare.

Each piece is MessagePack of at most two values and some words. The same session always has the same pieces in
the same order.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import msgspec

from dspex import errors, wire
from dspex.kinds.plain import thaw
from dspex.records import Record
from dspex.stores.export import Export

__all__ = [
    "FORMAT",
    "Declared",
    "Head",
    "Piece",
    "Row",
    "Tagged",
    "Taken",
    "check_same",
    "digest",
    "pieces_of",
    "rows_of",
]

FORMAT = 1
"""The version of what follows."""


class Piece(msgspec.Struct, array_like=True, tag=True, forbid_unknown_fields=True, frozen=True):
    """One part of an export: as MessagePack an array that begins with a name for its class."""


class Head(Piece, tag="session", frozen=True):
    """Where the session is."""

    format: int
    epoch: str
    rev: int
    start: int
    created: float


class Declared(Piece, tag="variable", frozen=True):
    """A declaration, as `wire.pack_declaration` makes it. They come in the order in which they were made."""

    declaration: bytes


class Row(Piece, tag="version", frozen=True):
    """One variable at one version: the newest is its record, older ones are history or labelled."""

    name: str
    version: int
    rev: int
    time: float
    source: str | None
    metadata: Any
    value: Any
    place: int | None = None
    """Among the changes of its commit; None for what the history does not have any more."""
    old: list[Any] = msgspec.field(default_factory=list)
    """The value before, if no other row has it; else nothing."""


class Tagged(Piece, tag="label", frozen=True):
    """A revision with a name: how many variables there were, and the versions of those that were ever set."""

    label: str
    rev: int
    names: int
    versions: dict[str, int]


class Taken(Piece, tag="claim", frozen=True):
    """A claim on one name, and how many seconds are left of it."""

    name: str
    owner: str
    token: str
    left: float


_encode = msgspec.msgpack.Encoder().encode


def pieces_of(export: Export) -> list[bytes]:
    """*export* as pieces."""
    return _packed(export, export.created, time.monotonic())


def digest(export: Export) -> str:
    """What two sessions have in common that are the same: all but when they were made."""
    made = sha256()
    for piece in _packed(export, 0.0, None):
        made.update(len(piece).to_bytes(8, "big"))
        made.update(piece)
    return made.hexdigest()


def check_same(export: Export, made: Export) -> None:
    """
    Refuse what was *made* of an export, if it is not the same.

    Raises:
        StoreUnavailable: The store has not kept what it was given.
    """
    if digest(export) != digest(made):
        raise errors.StoreUnavailable(
            f"the copy is not what was copied: {len(export.records)} values at {export.revision} came out as "
            f"{len(made.records)} at {made.revision}. The copy was dropped; the session is where it was."
        )


def _packed(export: Export, created: float, now: float | None) -> list[bytes]:
    at = export.revision
    head = Head(FORMAT, at.epoch, at.rev, export.start, created)
    declared = [Declared(wire.pack_declaration(one)) for one in export.schema.declarations.values()]
    labels = [
        Tagged(
            label,
            then.revision.rev,
            len(then),
            {name: one.version for name, one in then._records.items() if one.version},
        )
        for label, then in sorted(export.tags.items())
    ]
    claims = [
        Taken(name, held.owner, held.token, 0.0 if now is None else max(0.0, held.until - now))
        for name, held in export.claims
    ]
    try:
        return [_encode(piece) for piece in [head, *declared, *rows_of(export), *labels, *claims]]
    except (TypeError, ValueError, OverflowError) as error:  # a text that is none, in what was never written
        raise errors.InvalidValue.expecting(f"what can be written ({error})", "another one").at(
            "the session"
        ) from None


def rows_of(export: Export) -> Iterator[Row]:
    """Every version of every variable that *export* knows, each once."""
    known: dict[str, dict[int, tuple[Record, int | None]]] = defaultdict(dict)
    rev = number = 0
    for change in export.history:
        number = number + 1 if change.rev == rev else 0
        rev = change.rev
        known[change.name][change.version] = change, number
    for records in (export.records, *(then._records for then in export.tags.values())):
        for name, record in records.items():
            if record.version:
                known[name].setdefault(record.version, (record, None))
    for name, kind in export.schema.kinds.items():
        versions = known[name]
        for version, (record, place) in sorted(versions.items()):
            told = place is None or version == 1 or version - 1 in versions
            yield Row(
                name,
                version,
                record.rev,
                record.time,
                record.source,
                None if record.metadata is None else thaw(record.metadata),
                kind.dump(record.value),
                place,
                [] if told else [kind.dump(record.old)],  # type: ignore[attr-defined]  # a Change of the history
            )

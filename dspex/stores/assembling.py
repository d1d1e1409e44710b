"""
A session made of what came from elsewhere: the pieces of an export, or what a person wrote.

Nothing is trusted. What comes out is a session that could have been made here, or a refusal that says where.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import attrs
import msgspec

from dspex import errors, wire
from dspex.authors import check_source
from dspex.changes import Change
from dspex.commits import Declaration, Schema
from dspex.kinds.plain import thaw
from dspex.records import Record, Revision, Snapshot, check_name, frozen_metadata
from dspex.stores import base, refusals
from dspex.stores.claimed import NESTING, Held
from dspex.stores.export import Export
from dspex.stores.ledger import EMPTY
from dspex.stores.pieces import FORMAT, Declared, Head, Row, Tagged, Taken

__all__ = ["Assembly", "at", "unpacked"]

MOST = (1 << 63) - 1
"""The largest number that every store can keep."""

_decode = msgspec.msgpack.Decoder(Head | Declared | Row | Tagged | Taken).decode


def unpacked(
    pieces: Iterable[bytes],
    known: Schema = EMPTY,
    declaration_of: Callable[[bytes], Declaration] = wire.unpack_declaration,
) -> Export:
    """
    The export that *pieces* are of.

    Args:
        pieces: All of them, in their order.
        known: Declarations to be preferred where they say the same: the class of a struct does not travel.
        declaration_of: What makes a declaration of its bytes, or refuses.

    Raises:
        InvalidValue, InvalidName, InvalidDeclaration, LimitExceeded: No session looks like that.
    """
    assembly: Assembly | None = None
    for number, data in enumerate(pieces, 1):
        where = f"piece {number}"
        try:
            piece = _decode(data)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise errors.InvalidValue.expecting(f"a piece of an export ({error})", f"{len(data)} bytes").at(
                where
            ) from None
        if assembly is None or isinstance(piece, Head):
            if assembly is not None or not isinstance(piece, Head):
                raise errors.InvalidValue.expecting("what comes there", type(piece).__name__).at(where)
            assembly = Assembly(piece, known, declaration_of)
        else:
            assembly.take(where, piece)
    if assembly is None:
        raise errors.InvalidValue.expecting("pieces", "none").at("an export")
    return assembly.export()


@contextmanager
def at(where: str) -> Iterator[None]:
    """A block whose refusals are said of *where*."""
    try:
        yield
    except errors.InvalidValue as error:
        inside = str(getattr(error, "name", "")).startswith(where)
        raise (error if inside else error.at(where)) from None
    except (errors.InvalidName, errors.InvalidDeclaration, errors.LimitExceeded) as error:
        raise type(error)(f"{where}: {error.message}", **error.facts) from None


def _must(so: bool, where: str, expected: str, given: object) -> None:
    if not so:
        raise errors.InvalidValue.expecting(expected, errors.shown(given, 80)).at(where)


class Assembly:
    """What is known of a session so far; pieces come in any order, declarations before all else."""

    def __init__(
        self,
        head: Head,
        known: Schema = EMPTY,
        declaration_of: Callable[[bytes], Declaration] = wire.unpack_declaration,
    ) -> None:
        _must(head.format == FORMAT, "the format", f"{FORMAT}, which this dspex reads", head.format)
        epoch = head.epoch
        _must(epoch.isascii() and epoch.isalnum() and len(epoch) <= 64, "epoch", "letters and digits", epoch)
        _must(0 <= head.rev < MOST, "rev", "from 0", head.rev)
        _must(0 <= head.start <= head.rev, "start", f"from 0 to {head.rev}", head.start)
        _must(math.isfinite(head.created), "created", "a time", head.created)
        self._head = head
        self._known = known
        self._declaration_of = declaration_of
        self._declared: dict[str, Declaration] = {}
        self._records: dict[str, dict[int, Record]] = defaultdict(dict)
        """By name and version."""
        self._changes: dict[tuple[int, int], tuple[str, Row]] = {}
        """Of the history, by revision and place: where it is from, and what it is."""
        self._labels: dict[str, tuple[str, Tagged]] = {}
        self._claims: list[tuple[str, Held]] = []

    def take(self, where: str, piece: Declared | Row | Tagged | Taken) -> None:
        """Take *piece*, which is from *where*."""
        with at(where):
            if isinstance(piece, Declared):
                self.declare(where, self._declaration_of(piece.declaration))
            elif isinstance(piece, Row):
                self.add(where, piece)
            elif isinstance(piece, Tagged):
                self.label(where, piece)
            else:
                self.claim(where, piece)

    # ---- declarations ------------------------------------------------------------------------------

    def declare(self, where: str, declared: Declaration) -> None:
        """Take a declaration."""
        name = declared.name
        _must(name not in self._declared, where, "a variable that was not there before", name)
        if len(self._declared) >= base.NAMES:
            raise refusals.too_many_names(where, base.NAMES + 1, base.NAMES)
        better = self._known.declarations.get(name)
        if better is not None and _says_the_same(better.kind, declared.kind):
            initial = better.kind.load(declared.kind.dump(declared.initial))
            declared = attrs.evolve(declared, kind=better.kind, initial=initial)
        self._declared[name] = declared

    def _kind(self, where: str, name: str) -> Any:
        declared = self._declared.get(name)
        if declared is None:
            raise errors.InvalidValue.expecting(
                f"of a variable that is declared{errors.did_you_mean(name, self._declared)}",
                errors.shown(name, 80),
            ).at(where)
        return declared.kind

    # ---- versions ----------------------------------------------------------------------------------

    def add(self, where: str, row: Row) -> None:
        """Take one version of a variable."""
        kind, last = self._kind(where, row.name), self._head.rev
        _must(1 <= row.version < MOST, f"{where}.version", "from 1", row.version)
        _must(1 <= row.rev <= last, f"{where}.rev", f"from 1 to {last}", row.rev)
        _must(math.isfinite(row.time), f"{where}.time", "seconds since 1970", row.time)
        with at(f"{where}.source"):
            if row.source is not None:
                check_source(row.source)
        with at(f"{where}.metadata"):
            metadata = None if row.metadata is None else frozen_metadata(row.metadata)
        with at(f"{where}.value"):
            value = kind.load(row.value)
        record = Record(
            row.name, value, row.version, row.rev, self._head.epoch, row.source, metadata, row.time
        )
        same = self._records[row.name].setdefault(row.version, record)
        _must(
            same is record or _alike(kind, same, record),
            where,
            f"what is said of version {row.version} elsewhere; give a changed value a version of its own",
            "something else",
        )
        if row.place is not None:
            before = self._changes.setdefault((row.rev, row.place), (where, row))
            _must(before[1] is row, where, f"the only change {row.place} of revision {row.rev}", before[0])

    def _current(self) -> dict[str, Record]:
        found = {}
        for name, versions in self._records.items():
            before = 0
            for version, record in sorted(versions.items()):
                where = f"version {version} of '{name}'"
                _must(record.rev > before, where, f"of a revision after {before}", record.rev)
                before = record.rev
                found[name] = record
        return found

    def _history(self, current: Mapping[str, Record]) -> list[Change]:
        start, changes = self._head.start, []
        before = {name: record.version for name, record in current.items()}
        for _, (where, row) in sorted(self._changes.items(), reverse=True):
            name, version = row.name, row.version
            _must(
                version == before[name],
                where,
                f"version {before[name]} of '{name}': the history of a variable has no holes",
                version,
            )
            before[name] = version - 1
            record = self._records[name][version]
            values = msgspec.structs.asdict(record)
            changes.append(Change(**values, old=self._before(where, row)))
        for name, version in before.items():
            for at, record in self._records[name].items():
                where = f"version {at} of '{name}'"
                in_time = record.rev <= start or at > version
                _must(in_time, where, f"in the history, which has all after revision {start}", "not")
        changes.reverse()
        missing = self._head.rev - start - len({change.rev for change in changes if change.rev > start})
        _must(not missing, "the history", f"complete after revision {start}", f"{missing} less")
        return changes

    def _before(self, where: str, row: Row) -> Any:
        declared = self._declared[row.name]
        known = self._records[row.name].get(row.version - 1)
        told = known is not None or row.version == 1
        _must(told or len(row.old) == 1, f"{where}.old", "the value before", row.old)
        value = declared.initial if known is None else known.value
        if row.old:
            with at(f"{where}.old"):
                old = declared.kind.load(row.old[0])
            pack = partial(wire.pack_value, declared.kind)
            _must(not told or pack(old) == pack(value), f"{where}.old", "the value before", row.old[0])
            value = old
        return value

    # ---- labels and claims -------------------------------------------------------------------------

    def label(self, where: str, label: Tagged) -> None:
        """Take a label."""
        check_name(label.label)
        _must(label.label not in self._labels, where, "a label that was not there before", label.label)
        if len(self._labels) >= base.TAGS:
            raise refusals.too_many_tags(where, base.TAGS)
        _must(0 <= label.rev <= self._head.rev, f"{where}.rev", f"from 0 to {self._head.rev}", label.rev)
        self._labels[label.label] = where, label

    def _tags(self, schema: Schema) -> dict[str, Snapshot]:
        tags = {}
        initial = list(schema.initial.items())
        for name, (where, label) in self._labels.items():
            most = len(initial)
            _must(0 <= label.names <= most, f"{where}.names", f"from 0 to {most}", label.names)
            records: dict[str, Record] = dict(initial[: label.names])
            for one, version in label.versions.items():
                _must(one in records, where, "of variables that were declared then", one)
                record = self._records[one].get(version) if one in self._records else None
                if record is None or record.rev > label.rev:
                    raise errors.InvalidValue.expecting(
                        f"of versions that there were at revision {label.rev}", f"{one}: {version}"
                    ).at(where)
                records[one] = record
            tags[name] = Snapshot("", Revision(self._head.epoch, label.rev), records)
        return tags

    def claim(self, where: str, claim: Taken) -> None:
        """Take a claim."""
        self._kind(where, claim.name)
        check_name(claim.owner)
        chain = [held for name, held in self._claims if name == claim.name]
        _must(len(chain) < NESTING, where, f"one of at most {NESTING} on '{claim.name}'", "another")
        _must(0 < len(claim.token) <= 1024, f"{where}.token", "1 to 1024 characters", len(claim.token))
        _must(0 <= claim.left < math.inf, f"{where}.left", "seconds", claim.left)
        self._claims.append((claim.name, Held(claim.token, claim.owner, time.monotonic() + claim.left)))

    # ---- all of it ---------------------------------------------------------------------------------

    def export(self) -> Export:
        """The session."""
        schema, head = Schema(self._declared) if self._declared else EMPTY, self._head
        current = self._current()
        newest = max((record.rev for record in current.values()), default=0)
        _must(head.rev in (newest, head.start), "rev", f"{newest}, that of the newest value", head.rev)
        return Export(
            schema,
            Revision(head.epoch, head.rev),
            head.created,
            current,
            self._history(current),
            head.start,
            self._tags(schema),
            self._claims,
        )


def _says_the_same(kind: Any, other: Any) -> bool:
    return kind != other and bool(kind.describe() == other.describe())


def _alike(kind: Any, one: Record, other: Record) -> bool:
    return _bits(kind, one) == _bits(kind, other)


def _bits(kind: Any, one: Record) -> tuple[Any, ...]:
    metadata = None if one.metadata is None else wire.pack_plain(thaw(one.metadata))
    return one.rev, one.source, one.time, metadata, wire.pack_value(kind, one.value)

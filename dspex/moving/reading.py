"""A document as the session it describes, or as a refusal that says where it does not."""

from __future__ import annotations

import json
import math
import re
import time
from base64 import b64decode
from typing import Any, TypeVar

import attrs
import msgspec
from msgspec import UNSET, UnsetType, field

from dspex import errors, wire
from dspex.commits import Declaration
from dspex.kinds import Kind
from dspex.records import Revision
from dspex.stores.assembling import Assembly, at
from dspex.stores.base import check_session_id, new_epoch
from dspex.stores.export import Export
from dspex.stores.pieces import FORMAT, Head, Row, Tagged

__all__ = ["VERSION", "Found", "is_exact", "read"]

VERSION = 1
"""The version of the documents that are read and written."""

T = TypeVar("T")


class _Version(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    value: Any = UNSET
    value_msgpack: str | UnsetType = field(default=UNSET, name="value:msgpack")
    version: int | UnsetType = UNSET
    rev: int | UnsetType = UNSET
    time: float | UnsetType = UNSET
    source: str | UnsetType | None = UNSET
    metadata: Any = UNSET
    metadata_msgpack: str | UnsetType = field(default=UNSET, name="metadata:msgpack")


class _Change(_Version, forbid_unknown_fields=True, kw_only=True):
    name: str
    old: Any = UNSET
    old_msgpack: str | UnsetType = field(default=UNSET, name="old:msgpack")


class _Variable(_Version, forbid_unknown_fields=True, kw_only=True):
    kind: Any = UNSET
    kind_msgpack: str | UnsetType = field(default=UNSET, name="kind:msgpack")
    initial: Any = UNSET
    initial_msgpack: str | UnsetType = field(default=UNSET, name="initial:msgpack")
    description: str = ""
    owner: str = ""
    tunable: bool = True
    when: Any = None
    when_msgpack: str | UnsetType = field(default=UNSET, name="when:msgpack")
    secret: bool = False


class _Tag(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    rev: int
    variables: dict[str, Any] = {}
    unset: list[str] = []


class _History(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    start: int
    changes: list[Any]


class _Document(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    dspex: int
    session: str
    epoch: str
    rev: int
    variables: dict[str, Any]
    tags: dict[str, Any] = {}
    history: _History | None = None


@attrs.frozen
class Found:
    """What a document says."""

    session: str
    revision: Revision
    """Where it was when the document was written."""
    export: Export
    secrets: tuple[str, ...]


def read(text: str | bytes) -> Found:
    """What the document *text* says; all of it is checked."""
    document = _convert(_parsed(text), _Document, "")
    if document.dspex != VERSION:
        raise errors.InvalidValue.expecting(f"{VERSION}, which this dspex reads", f"{document.dspex}").at(
            "dspex"
        )
    with at("session"):
        check_session_id(document.session)
    reader = _Reader(document)
    return Found(
        document.session,
        Revision(document.epoch, document.rev),
        reader.export(),
        tuple(reader.secrets),
    )


def is_exact(plain: Any) -> bool:
    """Whether *plain* comes back from JSON bit for bit."""
    return wire.pack_plain(json.loads(msgspec.json.encode(plain))) == wire.pack_plain(plain)


# ---- JSON --------------------------------------------------------------------------------------------


def _parsed(text: str | bytes) -> Any:
    if not isinstance(text, str | bytes):
        raise errors.InvalidValue.expecting("JSON, as str or bytes", errors.shown(text, 80)).at(
            "the document"
        )
    # Not msgspec's: it takes the last of two values of one key, and does not count lines.
    try:
        return json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_float=_float,
        )
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno} of the document"
        line = error.doc.split("\n")[error.lineno - 1]  # as JSON counts them
        raise errors.InvalidValue.expecting(f"JSON ({error.msg})", errors.shown(line, 60)).at(where) from None
    except UnicodeDecodeError as error:
        raise errors.InvalidValue.expecting("UTF-8", error.reason).at(
            f"byte {error.start} of the document"
        ) from None
    except errors.InvalidValue:
        raise
    except (ValueError, RecursionError) as error:
        raise errors.InvalidValue.expecting("JSON", str(error)).at("the document") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise errors.InvalidValue.expecting(
            "an object in which no name comes twice", errors.shown(twice, 80)
        ).at("the document")
    return found


def _constant(text: str) -> Any:
    raise errors.InvalidValue.expecting("JSON, which has no such number", text).at("the document")


def _float(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _constant(text)


_TYPES = re.compile(r"Expected `(.+)`, got `(.+)`")
_UNKNOWN = re.compile(r"Object contains unknown field `(.+)`")
_MISSING = re.compile(r"Object missing required field `(.+)`")


def _convert(plain: Any, cls: type[T], where: str) -> T:
    try:
        return msgspec.convert(plain, cls)
    except msgspec.ValidationError as error:
        sentence, _, path = str(error).partition(" - at `$")
        place = f"{where}{path.rstrip('`')}".lstrip(".") or "the document"
    if found := _TYPES.search(sentence):
        raise errors.InvalidValue.expecting(f"of type {found[1]}", f"one of type {found[2]}").at(place)
    if found := _MISSING.search(sentence):
        raise errors.InvalidValue.expecting(f"an object with '{found[1]}'", "one without").at(place)
    if found := _UNKNOWN.search(sentence):
        known = [one.encode_name for one in msgspec.structs.fields(cls)]  # type: ignore[arg-type]
        raise errors.InvalidValue(
            f"{place} has a field that nobody reads, {found[1]!r}.{errors.did_you_mean(found[1], known)}",
            name=place,
        )
    raise errors.InvalidValue.expecting("what an export has there", sentence).at(place)


def _plain(entry: Any, key: str, where: str) -> Any:
    """What *entry* says of *key*, in whichever way; UNSET if nothing."""
    value, packed = getattr(entry, key), getattr(entry, f"{key}_msgpack")
    if packed is UNSET:
        return value
    place = f"{where}.{key}:msgpack"
    if value is not UNSET:
        raise errors.InvalidValue.expecting(f"left out where there is '{key}'", "both").at(place)
    with at(place):
        try:
            data = b64decode(packed, validate=True)
        except ValueError:
            raise errors.InvalidValue.expecting("base64", errors.shown(packed, 60)) from None
        return wire.unpack_plain(data)


def _has_value(plain: Any) -> bool:
    return isinstance(plain, dict) and not plain.keys().isdisjoint({"value", "value:msgpack"})


# ---- the session -------------------------------------------------------------------------------------


class _Reader:
    """Takes the parts of a document to an assembly, each under its path."""

    def __init__(self, document: _Document) -> None:
        self.secrets: list[str] = []
        """What is declared there and has no values."""
        self._document = document
        self._now = time.time()
        self._positions: dict[str, int] = {}
        # A value that somebody writes in was never committed: in a session without commits it is the first.
        self._rev = rev = document.rev or int(any(map(_has_value, document.variables.values())))
        start = rev if document.history is None else document.history.start
        self._assembly = Assembly(Head(FORMAT, new_epoch(), rev, start, self._now))

    def export(self) -> Export:
        document = self._document
        for name, plain in document.variables.items():
            where = f"variables.{name}"
            self._variable(where, name, _convert(plain, _Variable, where))
        for label, plain in document.tags.items():
            where = f"tags.{label}"
            self._tag(where, label, _convert(plain, _Tag, where))
        if document.history is not None:
            for place, plain in enumerate(document.history.changes):
                where = f"history.changes[{place}]"
                change = _convert(plain, _Change, where)
                self._row(where, change.name, change, place)
        return self._assembly.export()

    def _variable(self, where: str, name: str, said: _Variable) -> None:
        initial = _plain(said, "initial", where)
        if initial is UNSET and said.secret:
            self.secrets.append(name)
            return
        for key, plain in (("kind", _plain(said, "kind", where)), ("initial", initial)):
            if plain is UNSET:
                raise errors.InvalidValue.expecting(f"an object with '{key}'", "one without").at(where)
        with at(f"{where}.kind"):
            kind = Kind.from_description(_plain(said, "kind", where))
        with at(f"{where}.initial"):
            initial = kind.load(initial)
        with at(where):
            condition = wire.as_condition(_plain(said, "when", where))
            declared = Declaration(name, kind, initial, said.description, said.owner, said.tunable, condition)
            self._assembly.declare(where, declared)
        self._positions[name] = len(self._positions)
        if any(getattr(said, field.name) is not UNSET for field in msgspec.structs.fields(_Version)):
            self._row(where, name, said)

    def _row(self, where: str, name: str, said: _Version, place: int | None = None) -> int:
        value, metadata = _plain(said, "value", where), _plain(said, "metadata", where)
        if value is UNSET:
            raise errors.InvalidValue.expecting("an object with 'value'", "one without").at(where)
        old = _plain(said, "old", where) if isinstance(said, _Change) else UNSET
        version = 1 if said.version is UNSET else said.version
        row = Row(
            name,
            version,
            self._rev if said.rev is UNSET else said.rev,
            self._now if said.time is UNSET else said.time,
            None if said.source is UNSET else said.source,
            None if metadata is UNSET else metadata,
            value,
            place,
            [] if old is UNSET else [old],
        )
        self._assembly.add(where, row)
        return version

    def _tag(self, where: str, label: str, tag: _Tag) -> None:
        versions = {}
        for name, plain in tag.variables.items():
            inside = f"{where}.variables.{name}"
            versions[name] = self._row(inside, name, _convert(plain, _Version, inside))
        names = [*versions, *tag.unset]
        for name in names:
            if name not in self._positions:
                raise errors.InvalidValue.expecting(
                    f"of variables that are declared{errors.did_you_mean(name, self._positions)}", repr(name)
                ).at(where)
        count = max((self._positions[name] + 1 for name in names), default=0)
        with at(where):
            self._assembly.label(where, Tagged(label, tag.rev, count, versions))

"""A session as a JSON document that people read and change, and back."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from typing import Any

import attrs
import msgspec

from dspex import wire
from dspex.commits import Commit, Write
from dspex.kinds.plain import thaw
from dspex.moving.copies import restored
from dspex.moving.reading import VERSION, is_exact, read
from dspex.records import Record, Revision
from dspex.session import Session
from dspex.stores import Store, open_store
from dspex.stores.export import Export

__all__ = ["Imported", "export_session", "import_session"]


@attrs.frozen
class Imported:
    """What `import_session` did."""

    session: Session
    """The session that was made, to be closed; or the one that was given."""

    revision: Revision
    """Where it was then."""

    secrets: tuple[str, ...]
    """Variables whose values the document does not have. They were left out, or as they were."""


def export_session(session: Session, *, history: bool = False) -> str:
    """
    *session* as JSON for people: kinds, values, versions, authors, reasons, times and labels.

    `import_session` makes the same of it, bit for bit. What JSON cannot say exactly, such as NaN, bytes and
    arrays, stands there as MessagePack in base64, under a name that ends with `:msgpack`. The values of
    secret variables are left out, and so are claims, which are secrets too.

    Args:
        session: What to export.
        history: Whether to write the changes too, as far as they are kept.
    """
    export = session.ledger.export()
    secrets = {name for name, kind in export.schema.kinds.items() if kind.secret}
    at = export.revision
    document: dict[str, Any] = {"dspex": VERSION, "session": session.id, "epoch": at.epoch, "rev": at.rev}
    document["variables"] = {name: _variable(export, name) for name in export.schema.declarations}
    if export.tags:
        document["tags"] = {
            label: {
                "rev": then.revision.rev,
                "variables": _records(export, then._records.values(), secrets),
                "unset": [
                    name for name, one in then._records.items() if not one.version and name not in secrets
                ],
            }
            for label, then in export.tags.items()
        }
    if history:
        changes = [
            {"name": change.name, **_record(export, change, before=change.version > 1)}
            for change in export.history
            if change.name not in secrets
        ]
        complete = len(changes) == len(export.history)
        document["history"] = {"start": export.start if complete else at.rev, "changes": changes}
    return msgspec.json.format(msgspec.json.encode(document), indent=2).decode() + "\n"


def _variable(export: Export, name: str) -> dict[str, Any]:
    declared = export.schema.declarations[name]
    kind, record = declared.kind, export.records.get(name)
    said = _said({}, "kind", kind.describe())
    if kind.secret:
        said["secret"] = True
    else:
        _said(said, "initial", kind.dump(declared.initial))
        if record is not None:
            said |= _record(export, record)
    if not declared.tunable:
        said["tunable"] = False
    if declared.when is not None:
        _said(said, "when", wire.plain_condition(declared.when))
    return said | {key: text for key in ("description", "owner") if (text := getattr(declared, key))}


def _records(export: Export, records: Iterable[Record], secrets: set[str]) -> dict[str, Any]:
    return {one.name: _record(export, one) for one in records if one.version and one.name not in secrets}


def _record(export: Export, record: Any, *, before: bool = False) -> dict[str, Any]:
    dump = export.schema.kinds[record.name].dump
    said = _said({}, "value", dump(record.value))
    if before:
        _said(said, "old", dump(record.old))
    said |= {"version": record.version, "rev": record.rev, "time": record.time}
    if record.source is not None:
        said["source"] = record.source
    if record.metadata is not None:
        _said(said, "metadata", thaw(record.metadata))
    return said


def _said(entry: dict[str, Any], key: str, plain: Any) -> dict[str, Any]:
    """Put *plain* into *entry*: as JSON if that says it exactly, else as what does."""
    if is_exact(plain):
        entry[key] = plain
    else:
        entry[f"{key}:msgpack"] = b64encode(wire.pack_plain(plain)).decode()
    return entry


def import_session(
    document: str | bytes, target: str | Store | Session, *, as_id: str | None = None
) -> Imported:
    """
    Do what *document*, made by `export_session` and perhaps changed since, says: all of it, or nothing.

    Args:
        document: The JSON.
        target: A store or its URL: the session is made there, with its versions, in a history of its own.
            Or an open session: what it does not have is declared and what differs is set, in one commit.
        as_id: The id in the store, if not the one in the document.

    Raises:
        InvalidValue: It is no such document. The sentence says in which line, or at which field.
        SessionExists: The store has a session of that id. Give another one, or open it and import into it.
        VariableConflict: The open session has a variable with another kind.
    """
    found = read(document)
    if isinstance(target, Session):
        if as_id is not None:
            raise TypeError("as_id is for a session that is made; an open one has its id")
        revision = _merge(target, found.export, {"import": f"{found.session}@{found.revision}"})
        return Imported(target, revision, found.secrets)
    session = restored(open_store(target), found.session if as_id is None else as_id, found.export)
    return Imported(session, session.revision, found.secrets)


def _merge(session: Session, export: Export, metadata: Mapping[str, Any]) -> Revision:
    known, snapshot = session.variables, session.snapshot()
    new, writes = [], []
    for name, declared in export.schema.declarations.items():
        kind, record = declared.kind, export.records.get(name)
        value = wire.pack_value(kind, declared.initial if record is None else record.value)
        if name not in known or known[name].kind.describe() != kind.describe():
            new.append(declared)  # of another kind it is refused
            before = wire.pack_value(kind, declared.initial)
        else:
            kind = known[name].kind
            before = wire.pack_value(kind, snapshot[name])
        if value != before:
            writes.append(Write(name, wire.unpack_value(kind, value)))
    # Made at once, also inside a batch: it is a batch itself.
    return session._make(Commit(tuple(writes), tuple(new), metadata=metadata)).revision

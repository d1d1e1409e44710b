"""What a server says, as messages and back: sessions, commits and changes."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from dspex import errors, wire
from dspex.changes import Change
from dspex.commits import Declaration, Receipt, Schema
from dspex.kinds import Kind
from dspex.kinds.plain import freeze, thaw
from dspex.records import Record, SessionInfo, Snapshot
from dspex.rpc import framing
from dspex.rpc.extra import pb
from dspex.stores.base import Ended, Ledger

__all__ = [
    "change_of",
    "declarations",
    "digest",
    "ended",
    "event",
    "events",
    "history_replies",
    "item",
    "message_of",
    "opened",
    "own_reply",
    "replies_with_changes",
    "session_replies",
    "snapshot_replies",
]

_pack = wire.pack_value


# ---- changes -------------------------------------------------------------------------------------------


def message_of(kind: Kind[Any], record: Record, *, old: bool = False) -> pb.Change:
    """*record* of a variable of *kind* as a message; with the value before only if *old* says so."""
    message = pb.Change()
    _fill(message, record)
    message.value = _pack(kind, record.value)
    if old and isinstance(record, Change) and record.version:
        message.old = _pack(kind, record.old)
    return message


def _fill(message: pb.Change, record: Record) -> None:
    message.name = record.name
    message.version = record.version
    message.rev = record.rev
    message.time = record.time
    if record.source is not None:
        message.source = record.source
    if record.metadata is not None:
        message.metadata = wire.pack_plain(thaw(record.metadata))


def change_of(kinds: Mapping[str, Kind[Any]], epoch: str, message: pb.Change, old: Any = None) -> Change:
    """The change that *message* tells; *old* is the value before, if the message has none."""
    name, has = message.name, message.HasField
    kind = kinds[name]
    return Change(
        name,
        wire.unpack_value(kind, message.value),
        message.version,
        message.rev,
        epoch,
        message.source if has("source") else None,
        freeze(wire.unpack_plain(message.metadata)) if has("metadata") else None,
        message.time,
        wire.unpack_value(kind, message.old) if has("old") else old,
    )


def item(id: int, **what: Any) -> bytes:
    """One item, as the bytes of a frame; frames joined are one frame."""
    return pb.Down(items=[pb.Item(id=id, **what)]).SerializeToString()


def ended(channel: int, ledger: Ledger) -> pb.Ended:
    """That there is no such session any more, and why, if it was not deleted."""
    records = ledger.records
    error = records.error() if isinstance(records, Ended) else None
    moved = wire.pack_error(error) if isinstance(error, errors.SessionMoved) else None
    return pb.Ended(channel=channel, error=moved)


def event(schema: Schema, channel: int, change: Change) -> bytes:
    """The commit of *change* alone as a frame: most of what is ever sent, so in as few steps as can be."""
    value = _pack(schema.kinds[change.name], change.value)
    rev = change.rev
    if len(value) >= framing.BIG:
        message = pb.Change()
        _fill(message, change)
        about = pb.Event(channel=channel, prev=rev - 1, rev=rev)
        return framing.event_frame(about, [framing.change_bytes(message, value)])
    down = pb.Down()
    told = down.items.add().event
    told.channel = channel
    told.prev = rev - 1
    told.rev = rev
    message = told.changes.add()
    _fill(message, change)
    message.value = value
    return down.SerializeToString()


def events(
    schema: Schema, channel: int, prev: int, rev: int, changes: Iterable[Record], *, coalesced: bool = False
) -> Iterator[bytes]:
    """The commit *rev*, or all after *prev* as one, as frames."""
    kinds = schema.kinds
    for part, more in framing.parts(_told(kinds[change.name], change) for change in changes):
        about = pb.Event(channel=channel, prev=prev, rev=rev, coalesced=coalesced, more=more)
        yield framing.event_frame(about, part)


def _told(kind: Kind[Any], record: Record) -> bytes:
    message = pb.Change()
    _fill(message, record)
    return framing.change_bytes(message, _pack(kind, record.value))


def digest(records: Iterable[Record]) -> int:
    """What two ends compare to know that they have the same versions."""
    lines = sorted(f"{record.name} {record.version}\n" for record in records if record.version)
    return zlib.crc32("".join(lines).encode())


def own_reply(id: int, rev: int, time: float) -> bytes:
    """What one who commits what it watches is told, as a frame."""
    down = pb.Down()
    item = down.items.add()
    item.id = id
    commit = item.commit
    commit.rev = rev
    commit.own = True
    commit.time = time
    return down.SerializeToString()


# ---- answers; large ones in parts, each made when the one before is on its way -------------------------


def declarations(declared: Iterable[Declaration]) -> list[bytes]:
    """*declared* as bytes."""
    return [wire.pack_declaration(one) for one in declared]


def opened(
    session: str,
    channel: int,
    start: pb.Start,
    revision: tuple[str, int],
    *,
    schema: Schema,
    records: Iterable[Record],
) -> Iterator[pb.Opened]:
    """A session at *revision*."""
    epoch, rev = revision
    for part, more in framing.parts(_state(schema, schema.declarations.values(), records)):
        yield pb.Opened(
            session=session,
            channel=channel,
            epoch=epoch,
            rev=rev,
            start=start,
            declarations=[one for one in part if isinstance(one, bytes)],
            records=[one for one in part if not isinstance(one, bytes)],
            more=more,
        )


def _state(
    schema: Schema, declared: Iterable[Declaration], records: Iterable[Record]
) -> Iterator[bytes | pb.Change]:
    kinds = schema.kinds
    for one in declared:
        yield wire.pack_declaration(one)
    for record in records:
        if record.version:
            yield message_of(kinds[record.name], record)


def snapshot_replies(
    schema: Schema, snapshot: Snapshot, names: Sequence[str], tags: Mapping[str, Any]
) -> Iterator[pb.SnapshotReply]:
    """*snapshot*, of *names* only if there are any."""
    records = snapshot.records
    chosen = {name: records[name] for name in names} if names else records
    declared = (one for one in schema.declarations.values() if one.name in chosen)
    labels = {label: pb.Revision(epoch=at.epoch, rev=at.rev) for label, at in tags.items()}
    for part, more in framing.parts(_state(schema, declared, chosen.values())):
        yield pb.SnapshotReply(
            epoch=snapshot.revision.epoch,
            rev=snapshot.revision.rev,
            declarations=[one for one in part if isinstance(one, bytes)],
            records=[one for one in part if not isinstance(one, bytes)],
            tags=labels,
            more=more,
        )
        labels = {}


def history_replies(schema: Schema, epoch: str, changes: Iterable[Change]) -> Iterator[pb.HistoryReply]:
    """*changes* with the values before."""
    kinds = schema.kinds
    for part, more in framing.parts(message_of(kinds[one.name], one, old=True) for one in changes):
        yield pb.HistoryReply(epoch=epoch, changes=part, more=more)


def replies_with_changes(schema: Schema, receipt: Receipt) -> Iterator[pb.CommitReply]:
    """What a commit did, in full."""
    kinds = schema.kinds
    for part, more in framing.parts(message_of(kinds[one.name], one, old=True) for one in receipt.changes):
        yield pb.CommitReply(epoch=receipt.epoch, rev=receipt.rev, changes=part, more=more)


def session_replies(infos: Iterable[SessionInfo]) -> Iterator[pb.ListReply]:
    """*infos*."""
    for part, more in framing.parts(map(_session, infos)):
        yield pb.ListReply(sessions=part, more=more)


def _session(info: SessionInfo) -> pb.SessionInfo:
    return pb.SessionInfo(
        id=info.id,
        epoch=info.revision.epoch,
        rev=info.revision.rev,
        variables=info.variables,
        created=info.created,
    )

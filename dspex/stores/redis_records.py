"""What a Redis server keeps of a session, as bytes and as what they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from dspex import errors
from dspex.changes import Change
from dspex.commits import Commit, Declaration, Schema, Write
from dspex.kinds import Kind
from dspex.kinds.plain import freeze, thaw
from dspex.records import Record, Revision, Snapshot
from dspex.stores.redis_wire import LIBRARY
from dspex.wire import pack_declaration, unpack_declaration

__all__ = [
    "COMMIT",
    "KEY",
    "change_of",
    "changes_of",
    "commit_arguments",
    "corrupt",
    "declarations_of",
    "hinted",
    "pairs",
    "tag_of",
    "tail",
]

KEY = b"dx:{%b}:"
"""What the keys of a session begin with; the braces keep them together in a cluster."""

COMMIT = f"{LIBRARY}_commit".encode()

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode

BAD = (
    errors.InvalidValue,
    errors.LimitExceeded,
    errors.InvalidDeclaration,
    LookupError,
    TypeError,
    ValueError,
)
"""What reading bytes raises that are not what they should be."""


def tail(kind: Kind[Any], value: Any, source: str | None, metadata: Any) -> bytes:
    """The part of a record that its writer makes; the server puts version, revision and time before it."""
    return _encode((source, metadata, kind.dump(value)))


def change_of(kinds: Mapping[str, Kind[Any]], epoch: str, name: str, data: bytes, old: Any = None) -> Change:
    """The change that a record is."""
    version, rev, stamp, rest = data.split(b" ", 3)
    source, metadata, plain = _decode(rest)
    value = kinds[name].load(plain)
    why = None if metadata is None else freeze(metadata)
    return Change(name, value, int(version), int(rev), epoch, source, why, float(stamp), old)


def changes_of(
    kinds: Mapping[str, Kind[Any]], initial: Mapping[str, Any], epoch: str, fields: Sequence[bytes]
) -> Iterator[Change]:
    """The changes of one entry of the log."""
    for at in range(0, len(fields), 4):
        name = fields[at].decode()
        before = fields[at + 3]
        old = value_of(kinds[name], before) if before else initial[name].value
        yield change_of(kinds, epoch, name, fields[at + 1], old)


def value_of(kind: Kind[Any], data: bytes) -> Any:
    """The value of a record."""
    return kind.load(_decode(data.split(b" ", 3)[3])[2])


def hinted(payload: bytes, at: int) -> Iterator[tuple[str, bytes]]:
    """Names and records of a commit as it was published."""
    while at < len(payload):
        name, at = _netstring(payload, at)
        record, at = _netstring(payload, at)
        yield name.decode(), record


def _netstring(data: bytes, at: int) -> tuple[bytes, int]:
    colon = data.index(b":", at)
    end = colon + 1 + int(data[at:colon])
    return data[colon + 1 : end], end


def pairs(replies: Any) -> dict[bytes, bytes]:
    """A hash, as a function of the server gives it."""
    if isinstance(replies, dict):
        return replies
    return dict(zip(replies[::2], replies[1::2], strict=True))


def declarations_of(fields: Mapping[bytes, bytes]) -> list[Declaration]:
    """Declarations in the order in which they were made."""
    indexed = []
    for data in fields.values():
        index, _, packed = data.partition(b" ")
        indexed.append((int(index), packed))
    return [unpack_declaration(packed) for _, packed in sorted(indexed)]


def tag_of(
    session: str, epoch: str, at: bytes, declared: Sequence[Declaration], records: Any, *, known: Schema
) -> Snapshot:
    """What a label stands for, which is *at* a revision with so many variables."""
    rev, count = map(int, at.split(b" "))
    schema = Schema({one.name: known.declarations.get(one.name, one) for one in declared[:count]})
    found: dict[str, Record] = {name: known.initial.get(name, one) for name, one in schema.initial.items()}
    for name, data in pairs(records).items():
        if name:
            found[name.decode()] = change_of(schema.kinds, epoch, name.decode(), data)
    return Snapshot(session, Revision(epoch, rev), found)


def commit_arguments(
    commit: Commit,
    writes: Iterable[Write],
    kinds: Mapping[str, Kind[Any]],
    declare: Sequence[Declaration],
    metadata: Mapping[str, Any] | None,
) -> list[bytes]:
    """The arguments of the server's function from the token on, the number of known variables left out."""
    why = None if metadata is None else thaw(metadata)
    found: list[bytes] = [b"%d" % len(declare)]
    for one in declare:
        found += one.name.encode(), pack_declaration(one)
    claim = commit.claim
    if claim is None:
        found.append(b"")
    else:
        found += claim.token.encode(), claim.owner.encode(), b"%.6f" % claim.ttl, b"%d" % len(claim.names)
        found += [name.encode() for name in claim.names]
    found += (commit.release or "").encode(), (commit.tag or "").encode()
    made = list(writes)
    found.append(b"%d" % len(made))
    for write in made:
        source = commit.source if write.source is None else write.source
        expect = b"" if write.expect is None else b"%d" % write.expect
        found += write.name.encode(), expect, tail(kinds[write.name], write.value, source, why)
    for name, version in commit.given:
        found += name.encode(), b"%d" % version
    return found


def corrupt(session: str, where: str, error: Exception) -> errors.StoreUnavailable:
    """What the server has of a session cannot be read."""
    return errors.StoreUnavailable(
        f"session '{session}' at {where} cannot be read: {errors.shown(str(error))[1:-1]}", session=session
    )

"""Rows of a SQLite store as what they stand for, and what may become a row."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from dspex import errors
from dspex.changes import Change
from dspex.commits import Commit, Schema
from dspex.kinds import Kind
from dspex.records import Record, frozen_metadata
from dspex.stores.claimed import Claims, Held
from dspex.stores.ledger import EMPTY
from dspex.wire import unpack_declaration, unpack_plain

__all__ = ["change_since", "check_texts", "claims_of", "metadata_of", "record_of", "schema_of"]


@lru_cache(maxsize=64)
def schema_of(rows: tuple[bytes, ...]) -> Schema:
    """The schema that so many rows declare; sessions with the same declarations share one."""
    packed = [one for row in rows for one in unpack_plain(row)]
    return Schema({one.name: one for one in map(unpack_declaration, packed)}) if packed else EMPTY


def change_since(before: Record, now: Record) -> Change:
    """What a watcher that knew *before* is told of *now*."""
    return Change(
        now.name,
        now.value,
        now.version,
        now.rev,
        now.epoch,
        now.source,
        now.metadata,
        now.time,
        before.value,
    )


def metadata_of(why: bytes | None) -> Mapping[str, Any] | None:
    """The metadata of a row."""
    return None if why is None else frozen_metadata(unpack_plain(why))


def record_of(kinds: Mapping[str, Kind[Any]], epoch: str, row: tuple[Any, ...]) -> Record:
    """The record of a row."""
    name, version, rev, when, source, why, data = row
    value = kinds[name].load(unpack_plain(data))
    return Record(name, value, version, rev, epoch, source, None if why is None else metadata_of(why), when)


def claims_of(rows: Iterable[tuple[str, str, str, float, float]]) -> Claims:
    """The claims of rows."""
    # In the file a claim ends by the wall clock, which goes on while no process runs; in memory by one that
    # nobody can set.
    claims, now, here = Claims(), time.time(), time.monotonic()
    for name, owner, token, ttl, until in rows:
        claims.add(name, Held(token, owner, here + min(until - now, ttl)))
    return claims


def check_texts(commit: Commit) -> None:
    """Refuse what SQLite cannot keep as it is: texts that are none."""
    said: list[tuple[str, Any]] = [("source", commit.source), ("op", commit.op), ("release", commit.release)]
    said += [("source", write.source) for write in commit.writes]
    if commit.claim is not None:
        said += [("owner", commit.claim.owner), ("token", commit.claim.token)]
    for what, text in said:
        if text is None or (type(text) is str and text.isascii()):
            continue
        try:
            text.encode()
        except (AttributeError, UnicodeEncodeError):
            raise errors.InvalidValue.expecting("valid text", errors.shown(text, 80)).at(what) from None

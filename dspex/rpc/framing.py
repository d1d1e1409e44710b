"""
Protocol Buffers by hand, where a message is large.

The runtime copies a value into a message and the message into bytes, and each copy of a mebibyte takes as
long as sending it. The fields of a message may come in any order, so the small ones can be written by the
runtime and the large one behind them: https://protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from dspex.rpc.extra import pb
from dspex.rpc.limits import PART

__all__ = ["BIG", "big_put", "change_bytes", "event_frame", "parts"]

BIG = 32 * 1024
"""Bytes from which on a value is not put into a message."""


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(message: Any, field: str) -> bytes:
    """What stands before the length of *field*, which is bytes or a message."""
    return _varint(message.DESCRIPTOR.fields_by_name[field].number << 3 | 2)


def _enclosed(pieces: list[bytes], *around: tuple[bytes, bytes]) -> bytes:
    """
    *pieces* joined as the last field of messages around them.

    Args:
        pieces: What the innermost field has.
        around: Of each field from the inside out what `_number` gave, and what stands before it in its
            message.
    """
    size = sum(map(len, pieces))
    heads: list[bytes] = []
    for number, before in around:
        head = before + number + _varint(size)
        heads.append(head)
        size += len(head)
    return b"".join([*reversed(heads), *pieces])


UP_CALL = _number(pb.Up, "calls")
CALL_COMMIT = _number(pb.Call, "commit")
COMMIT_WRITE = _number(pb.CommitRequest, "writes")
WRITE_VALUE = _number(pb.Write, "value")
CHANGE_VALUE = _number(pb.Change, "value")
EVENT_CHANGE = _number(pb.Event, "changes")
ITEM_EVENT = _number(pb.Item, "event")
DOWN_ITEM = _number(pb.Down, "items")


def big_put(id: int, commit: pb.CommitRequest, write: pb.Write, value: bytes) -> bytes:
    """The frame of the call *id* that is *commit* with the one *write*, whose value is *value*."""
    return _enclosed(
        [value],
        (WRITE_VALUE, write.SerializeToString()),
        (COMMIT_WRITE, commit.SerializeToString()),
        (CALL_COMMIT, pb.Call(id=id).SerializeToString()),
        (UP_CALL, b""),
    )


def change_bytes(change: pb.Change, value: bytes) -> bytes:
    """*change* with *value*."""
    if len(value) < BIG:
        change.value = value
        return change.SerializeToString()
    return _enclosed([value], (CHANGE_VALUE, change.SerializeToString()))


def event_frame(event: pb.Event, changes: list[bytes]) -> bytes:
    """The frame of *event* with *changes*."""
    pieces = [event.SerializeToString()]
    for change in changes:
        pieces += (EVENT_CHANGE + _varint(len(change)), change)
    return _enclosed(pieces, (ITEM_EVENT, b""), (DOWN_ITEM, b""))


def parts(messages: Iterable[Any]) -> Iterator[tuple[list[Any], bool]]:
    """*messages* in lists of about `PART` bytes, at least one, each with whether more follow."""
    part: list[Any] = []
    size = 0
    for message in messages:
        more = len(message) if isinstance(message, bytes) else message.ByteSize()
        if part and size + more > PART:
            yield part, True
            part, size = [], 0
        part.append(message)
        size += more
    yield part, False

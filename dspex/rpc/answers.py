"""Answers of unary calls: what a Link gets in parts is one message here, which every client takes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dspex import errors
from dspex.rpc.extra import pb
from dspex.rpc.limits import MESSAGE

__all__ = ["whole"]

MOST = MESSAGE - 1024
"""Bytes of an answer; gRPC's own limit is a little more."""


def whole(replies: Iterator[Any]) -> bytes:
    """
    *replies* as one message.

    A commit that was made is always answered, if need be without the values, which who made it has. A history
    that is too long is given as far as it fits, and says how to go on.

    Raises:
        LimitExceeded: It does not fit.
    """
    made = next(replies)
    for reply in replies:
        made.MergeFrom(reply)
        if not isinstance(made, pb.CommitReply) and made.ByteSize() > MOST:
            break
    else:
        if isinstance(made, pb.CommitReply) and made.ByteSize() > MOST:
            for change in made.changes:
                for field in ("old", "value", "metadata"):
                    change.ClearField(field)
        if "more" in made.DESCRIPTOR.fields_by_name:
            made.ClearField("more")
    if made.ByteSize() > MOST and not (isinstance(made, pb.HistoryReply) and _cut(made)):
        raise errors.LimitExceeded(
            f"the answer does not fit into a message of {MESSAGE} bytes. Ask for some names, or by "
            "Subscribe or on a Link, which answer in parts.",
            limit=MESSAGE,
        )
    data: bytes = made.SerializeToString()
    return data


def _cut(reply: pb.HistoryReply) -> bool:
    """Leave the oldest commits that fit, whole; whether there are any."""
    changes = reply.changes
    size = fit = 0
    for index, change in enumerate(changes):
        if index and changes[index - 1].rev != change.rev:
            fit = index
        size += change.ByteSize() + 8
        if size > MOST:
            break
    del changes[fit:]
    reply.more = True
    return fit > 0

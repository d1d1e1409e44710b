"""The history of a session in memory: as long as it is short, and bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from operator import attrgetter

from dspex.changes import Change
from dspex.commits import Schema
from dspex.records import Record
from dspex.stores import base, refusals

__all__ = ["Layer", "Log"]

LENGTH = 3 * base.HISTORY
"""Length at which a log is shortened: much of it goes at once, which makes it cheap."""

_name_of = attrgetter("name")


class Layer(dict[str, Record]):
    """The few records that a session has set, over those that it started with: at first its history."""

    __slots__ = ("base",)

    def __init__(self, base: Mapping[str, Record]) -> None:
        self.base = base

    def __missing__(self, name: str) -> Record:
        # Kept, so that the next read is CPython's own; unless a commit was faster.
        return self.setdefault(name, self.base[name])

    def own(self) -> list[Record]:
        """Those that were set."""
        return [record for record in list(self.values()) if record is not self.base[record.name]]


class Log(list[Change]):
    """
    The changes of a session that are still known, oldest first.

    Keeps the newest `HISTORY` changes and the newest `HISTORY_PER_NAME` of every variable, as far as their
    values fit into `HISTORY_BYTES`.
    """

    __slots__ = ("_bytes", "_limit", "due", "start")

    def __init__(self, changes: Iterable[Change], start: int) -> None:
        super().__init__(changes)
        self.start = start
        """Of the revisions after this one no change is missing."""
        self.due = 0
        """The revision at which `bound` wants to be called again, whatever the changes are."""
        self._bytes = 0
        self._limit = LENGTH

    def bound(self, changes: Iterable[Change], rev: int, schema: Schema) -> None:
        """Take the size of the *changes* of revision *rev* into account, and forget what is too much."""
        heavy = _heavy(changes, schema)
        if not heavy and rev < self.due and len(self) < self._limit:
            return
        self.due = rev + base.HISTORY
        self._bytes += heavy
        if len(self) >= self._limit or self._bytes > base.HISTORY_BYTES:
            self._shorten(rev, schema)

    def part(self, session: str, name: str | None, since: int | None) -> list[Change]:
        """The changes of *name* alone, or those after revision *since*, or both."""
        if since is not None and since < self.start:
            raise refusals.forgotten(session, since, self.start)
        return [
            change
            for change in self
            if (name is None or change.name == name) and (since is None or change.rev > since)
        ]

    def _shorten(self, rev: int, schema: Schema) -> None:
        older, tail = self._older(schema), self[-base.HISTORY :]
        complete = len(older)
        kept = older + tail
        excess = _heavy(kept, schema) - base.HISTORY_BYTES // 2
        first = 0
        while excess > 0 and first < len(kept):
            excess -= _heavy(kept[first : first + 1], schema)
            first += 1
        # A commit may be cut in two: only what follows the first revision kept is surely all there.
        complete = max(complete, first)
        self.start = kept[complete].rev if complete < len(kept) else rev
        self[:] = kept[first:]
        self._bytes = _heavy(self, schema)
        self._limit = max(LENGTH, len(self) + base.HISTORY)

    def _older(self, schema: Schema) -> list[Change]:
        """What is kept from before the newest, so that rarely set variables have a history too."""
        often = Counter(map(_name_of, self[-base.HISTORY :]))
        scarce = {name for name in schema.kinds if often[name] < base.HISTORY_PER_NAME}
        kept = []
        for change in reversed([one for one in self[: -base.HISTORY] if one.name in scarce]):
            if often[change.name] < base.HISTORY_PER_NAME:
                often[change.name] += 1
                kept.append(change)
        return kept[::-1]


def _heavy(changes: Iterable[Change], schema: Schema) -> int:
    """The encoded size of those values in *changes* that are not always small."""
    if schema.fixed:
        return 0
    kinds = schema.kinds
    return sum(kind.size(change.value) for change in changes if not (kind := kinds[change.name]).fixed)

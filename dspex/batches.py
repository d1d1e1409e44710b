"""Many sets, one commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Self

from dspex import errors
from dspex.changes import Change
from dspex.commits import Commit, Receipt, Write
from dspex.records import Record

if TYPE_CHECKING:
    from dspex.session import Session

__all__ = ["Batch", "open_batch", "opened", "underway"]

opened: ContextVar[Batch | None] = ContextVar("dspex_batch", default=None)
"""The innermost batch of this thread or task, of whatever session."""

underway: set[int] = set()
"""The batches that are open, in whatever thread; by identity, which keeps alive none that nobody ends."""


def open_batch(session: Session) -> Batch | None:
    """The batch of *session* that this thread or task is in."""
    batch = opened.get()
    # A task that was started inside a block may still have the batch of it, long after its end.
    while batch is not None and (batch.session is not session or batch._entered is None):
        batch = batch._outer
    return batch


class Batch:
    """
    What `Session.batch` returns: a block whose sets become one commit at its end.

    A value that its kind refuses raises at its own line. An exception in the block drops the whole batch. A
    batch inside a batch of the same session joins it.
    """

    def __init__(self, session: Session, metadata: Mapping[str, Any] | None, source: str | None) -> None:
        self.session = session
        self.receipt: Receipt | None = None
        """What the commit did, once the block has ended; None if there was none, or another batch took it."""
        self._given = metadata
        self._metadata = metadata
        self._source = source
        self._writes: dict[str, Write] = {}
        self._token: str | None = None
        """Of the claim with whose right it commits."""
        self._outer: Batch | None = None
        self._joined: Batch | None = None
        """The batch of the same session around this one, which takes what this one has."""
        self._entered: Token[Batch | None] | None = None

    def add(
        self,
        name: str,
        value: Any,
        metadata: Mapping[str, Any] | None,
        source: str | None,
        expect: int | None,
    ) -> Change:
        """Note one write; what `Session.set` does inside the block."""
        record = self.session.record(name)
        value = self.session.check(name, value)
        if expect is None and name in self._writes:
            expect = self._writes[name].expect
        self._writes[name] = Write(name, value, expect, source)
        if metadata is not None:
            self._metadata = {**(self._metadata or {}), **metadata}
        return Change(
            name, value, record.version + 1, 0, record.epoch, source, metadata, time.time(), record.value
        )

    def swap(
        self, name: str, fn: Callable[[Any], Any], metadata: Mapping[str, Any] | None, source: str | None
    ) -> Change:
        """Note what *fn* makes of the value; what `Session.swap` does inside the block."""
        record = self.session.record(name)
        # What the batch has itself was not read, so its version is not expected beside what was before.
        expect = None if self._has(name) else record.version
        return self.add(name, fn(self.pending(record)), metadata, source, expect)

    def _has(self, name: str) -> bool:
        return name in self._writes or (self._joined is not None and self._joined._has(name))

    def join(self, commit: Commit) -> Receipt:
        """Note the writes of *commit*, or none; what the other verbs that set do inside the block."""
        token = self._right(commit.token)
        writes, metadata = dict(self._writes), self._metadata
        try:
            changes = [
                self.add(
                    write.name, write.value, commit.metadata, write.source or commit.source, write.expect
                )
                for write in commit.writes
            ]
        except errors.DspexError:
            self._writes, self._metadata = writes, metadata
            raise
        self._token = token
        return Receipt(self.session.revision.epoch, 0, tuple(changes))

    def _right(self, token: str | None) -> str | None:
        """The token of both *token* and what was joined before: of the inner of two claims."""
        inner, outer = sorted((token or "", self._token or ""), key=len, reverse=True)
        if outer and inner != outer and not inner.startswith(f"{outer}/"):
            raise errors.InvalidCall(
                f"a batch of session '{self.session.id}' commits with the right of one claim (got two). "
                "Claim all the names together, or make a batch for each."
            )
        return inner or None

    def pending(self, record: Record) -> Any:
        """The value that the batch has for a variable, or that of its *record*."""
        if record.name in self._writes:
            return self._writes[record.name].value
        return record.value if self._joined is None else self._joined.pending(record)

    def __enter__(self) -> Self:
        if self._entered is not None:
            raise errors.InvalidDeclaration("this batch is open already; make another one: session.batch().")
        self._writes, self._metadata, self._token, self.receipt = {}, self._given, None, None
        self._joined = open_batch(self.session)
        self._outer = opened.get()
        self._entered = opened.set(self)
        underway.add(id(self))
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._end() and kind is None:
            self.receipt = self._finish(self._commit())

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(self, kind: object, *_: object) -> None:
        if self._end() and kind is None:
            self.receipt = await self.session._call(self._finish, self._commit())

    def _end(self) -> bool:
        """Leave the block; whether there is something to commit."""
        if self._entered is not None:
            opened.reset(self._entered)
            self._entered = None
            underway.discard(id(self))
        return bool(self._writes)

    def _finish(self, commit: Commit) -> Receipt | None:
        if self._joined is None:
            return self.session._make(commit)
        self._joined.join(commit)
        return None

    def _commit(self) -> Commit:
        return Commit(
            tuple(self._writes.values()), source=self._source, metadata=self._metadata, token=self._token
        )

"""The scope of variable values: reads, commits, watches, forks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Self

from dspex import errors, forks, history, telemetry
from dspex.aio import AsyncVerbs
from dspex.authors import check_source, default_source
from dspex.batches import Batch, open_batch, underway
from dspex.changes import Change
from dspex.claims import Claim, active_token, request_of
from dspex.commits import Commit, Declaration, Receipt, Write
from dspex.kinds import Kind, as_kind
from dspex.placing import Placing, placed
from dspex.records import Record, Revision, Snapshot
from dspex.rules import make_ruled
from dspex.stores import Ledger, MemoryStore, Store, open_store
from dspex.stores.base import ClosedLedger, Ended
from dspex.trying import Trying
from dspex.variables import MISSING, checked_initial

__all__ = ["Session"]


class Session(Placing, AsyncVerbs, Trying):
    """
    A handle on the values of a set of variables; not a chat history.

    Args:
        id: The name of the session in its store. Without one it is private to this handle.
        store: Where it lives: a URL or a `Store`.
        source: Who sets, when a `set` does not say; by default the name of the script and its process id.

    A handle is used from any number of threads and event loops. Leaving it (`with`, `close`) never deletes a
    session that others use: a session in memory ends with its last handle.
    """

    __slots__ = ("__weakref__", "_parent", "_source")

    def __init__(
        self,
        id: str | None = None,
        *,
        store: str | Store = "memory://",
        source: str | None = None,
    ) -> None:
        owner = open_store(store)
        if id is not None:
            ledger: Ledger = owner.open(id)
        elif isinstance(owner, MemoryStore):
            ledger = owner.private()
        else:
            ledger = owner.open(f"session-{os.urandom(6).hex()}")
        if source is not None:
            check_source(source)
        self._begin(ledger, source if source is not None else default_source(), None)

    def _begin(self, ledger: Ledger, source: str, parent: Session | None) -> None:
        self._ledger = ledger
        self._source = source
        self._parent = parent
        self._fanout = None
        self._rare = None
        self._plans = ()
        self._programs = ()

    # ---- reading ----------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The id of the session."""
        return self._ledger.id

    @property
    def revision(self) -> Revision:
        """How far the session has come: `(epoch, rev)`."""
        return self._ledger.revision

    @property
    def closed(self) -> bool:
        """Whether this handle was closed."""
        return isinstance(self._ledger, ClosedLedger)

    @property
    def parent(self) -> Session | None:
        """The session that this one was forked from."""
        return self._parent

    @property
    def variables(self) -> Mapping[str, Declaration]:
        """What is declared here, by name."""
        return MappingProxyType(self._ledger.schema.declarations)

    @property
    def tags(self) -> Mapping[str, Revision]:
        """The labels that `tag` gave, and their revisions."""
        return dict(self._followed(lambda ledger: ledger.tags))

    def get(self, name: str, default: Any = MISSING) -> Any:
        """
        The value of *name*; *default*, if given, when there is no such variable.

        Raises:
            UnknownVariable: There is none, and no default.
            SessionClosed: This handle was closed.
        """
        try:
            return self._ledger.records[name].value
        except (KeyError, TypeError):
            if default is not MISSING:
                return default
            raise self._unknown(name) from None
        except errors.SessionMoved:
            if isinstance(self._ledger.records, Ended):
                raise
            return self.get(name, default)  # this handle went along in this very moment

    def record(self, name: str) -> Record:
        """Value, version, author, time and reason of *name*."""
        try:
            return self._ledger.records[name]
        except (KeyError, TypeError):
            raise self._unknown(name) from None
        except errors.SessionMoved:
            if isinstance(self._ledger.records, Ended):
                raise
            return self.record(name)

    def snapshot(self, tag: str | None = None) -> Snapshot:
        """All values at one revision: now, or when *tag* was given."""
        try:
            return self._ledger.snapshot(tag)
        except errors.SessionMoved:
            return self._followed(lambda ledger: ledger.snapshot(tag))

    def history(self, name: str | None = None) -> Sequence[Change]:
        """The changes of *name*, or of all variables, oldest first, as far as they are kept."""
        return self._followed(lambda ledger: ledger.history(name))

    def _unknown(self, name: str) -> errors.UnknownVariable:
        return errors.unknown_variable(f"session '{self.id}'", name, self._ledger.schema.kinds)

    # ---- declaring --------------------------------------------------------------------------------

    def register(
        self,
        name: str,
        kind: Any,
        *,
        initial: Any,
        constraints: Mapping[str, Any] | None = None,
        description: str = "",
    ) -> Declaration:
        """
        Declare a variable that no class declares. Takes what `defvariable` takes.

        Raises:
            VariableConflict: The session has that name with another kind. With the same it keeps what it has.
        """
        made: Kind[Any] = as_kind(kind, constraints)
        declared = Declaration(name, made, checked_initial(made, initial), description)
        self._commit(Commit(declare=(declared,)))
        return self.variables[name]

    def check(self, name: str, value: Any) -> Any:
        """
        *value* as *name* would store it; sets nothing.

        Raises:
            InvalidValue: The kind of *name* refuses it.
        """
        declared = self._ledger.schema.declarations.get(name)
        if declared is None:
            raise self._unknown(name)
        try:
            return declared.kind.check(value)
        except errors.InvalidValue as error:
            raise error.at(name, self.id) from None

    # ---- setting ----------------------------------------------------------------------------------

    def set(
        self,
        name: str,
        value: Any,
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
        expect: int | None = None,
    ) -> Change:
        """
        Set *name* and tell everyone who watches; one commit.

        Args:
            name: A variable of this session.
            value: What its kind takes.
            metadata: Why: plain data that stays with the value.
            source: Who, if not the source of this handle.
            expect: The version that the variable must have now.

        Returns:
            The change. Inside `batch()` it is provisional, with revision 0, until the batch ends.

        Raises:
            InvalidValue, UnknownVariable, VersionConflict, Claimed, RuleBroken, LimitExceeded,
            SessionClosed.
        """
        if source is not None:
            check_source(source)
        if underway and (batch := open_batch(self)) is not None:
            return batch.add(name, value, metadata, source, expect)
        fanout = self._fanout
        if fanout is not None and fanout.depth:
            fanout.admit()
        ledger = self._ledger
        try:
            if not ledger.rules and telemetry.active is None:
                return ledger.put(name, value, metadata, self._source if source is None else source, expect)
        except errors.Claimed:
            if active_token(self) is None:
                raise
        except (errors.SessionMoved, errors.SessionMoving):
            pass  # below it goes after the session, waits, or says so
        commit = Commit((Write(name, value, expect),), source=source, metadata=metadata)
        return self._commit(commit).changes[0]

    def update(
        self,
        values: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
        expect: Mapping[str, int] | None = None,
    ) -> Receipt:
        """Set several names in one commit: all of them, at one revision, or none."""
        expected = expect or {}
        if not isinstance(values, Mapping):
            raise errors.InvalidValue.expecting("values by name", errors.shown(values)).at("values")
        if not isinstance(expected, Mapping):
            raise errors.InvalidValue.expecting("versions by name", errors.shown(expected)).at("expect")
        if not expected.keys() <= values.keys():
            extra = errors.listed(expected.keys() - values.keys())
            raise errors.InvalidValue.expecting("versions of names that are set", extra).at("expect")
        writes = tuple(Write(name, value, expected.get(name)) for name, value in values.items())
        return self._commit(Commit(writes, source=source, metadata=metadata))

    def swap(
        self,
        name: str,
        fn: Callable[[Any], Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
    ) -> Change:
        """
        Replace the value by `fn(value)`; *fn* is called again when somebody else was first.

        No update is lost, however many swap at the same time.
        """
        while True:
            if underway and (batch := open_batch(self)) is not None:
                return batch.swap(name, fn, metadata, source)
            record = self.record(name)
            try:
                return self.set(name, fn(record.value), metadata, source=source, expect=record.version)
            except errors.VersionConflict:
                continue

    def batch(self, metadata: Mapping[str, Any] | None = None, *, source: str | None = None) -> Batch:
        """
        A context in which every `set` of this thread or task waits for one commit at the end.

        Reads give the old values until then. An exception in the block drops the batch.
        """
        return Batch(self, metadata, source)

    def rollback(
        self,
        name: str | None = None,
        version: int | None = None,
        *,
        to: str | None = None,
        source: str | None = None,
    ) -> Receipt:
        """
        Set *name* to what it was at *version*, or everything to what it was at the label *to*.

        This is a commit like any other: history grows, versions go on.

        Raises:
            UnknownRevision: The bounded history does not have it.
            InvalidCall: There is neither a name with a version nor a label.
        """
        if (name is None) == (to is None) or (name is None) != (version is None):
            raise errors.InvalidCall("rollback() takes a name and a version, or to=label.")
        if name is not None and version is not None:
            values: Mapping[str, Any] = {name: history.value_at(self, name, version)}
        else:
            values = history.values_at(self, to)
        writes = tuple(Write(key, value) for key, value in values.items())
        metadata = {"rollback": version if to is None else to}
        return self._commit(Commit(writes, source=source, metadata=metadata))

    def tag(self, label: str) -> Revision:
        """Give the present revision a name to roll back to; the same name again moves it."""
        return self._commit(Commit(tag=label)).revision

    def claim(self, names: Iterable[str], *, owner: str, ttl: float) -> Claim:
        """
        Keep everybody else from setting *names* for *ttl* seconds.

        Set through the returned `Claim`, or in its `with` block; leaving the block releases it.

        Raises:
            Claimed: Another owner holds one of them.
        """
        request = request_of(self, names, owner, ttl)
        self._commit(Commit(claim=request))
        return Claim(self, request)

    def _commit(self, commit: Commit) -> Receipt:
        fanout = self._fanout
        if fanout is not None and fanout.depth:
            fanout.admit()
        if underway and commit.writes and (batch := open_batch(self)) is not None:
            return batch.join(commit)
        return self._make(commit)

    def _make(self, commit: Commit) -> Receipt:
        if commit.source is not None:
            check_source(commit.source)
        made = commit.replacing(
            source=self._source if commit.source is None else commit.source,
            token=commit.token if commit.token is not None else active_token(self),
        )
        if telemetry.active is None:
            return self._followed(lambda ledger: make_ruled(self, ledger, made))
        with telemetry.active.commit(self.id, made) as tell:
            receipt = self._followed(lambda ledger: make_ruled(self, ledger, made))
            tell(receipt)
        return receipt

    # ---- forks ------------------------------------------------------------------------------------

    def fork(self, values: Mapping[str, Any] | None = None) -> Session:
        """
        A private session that starts as this one is now, with *values* set in it.

        Nothing is copied until it is written, and neither sees what the other sets.
        """
        if values is not None and not isinstance(values, Mapping):
            raise errors.InvalidValue.expecting("values by name", errors.shown(values)).at("values")
        child = Session.__new__(type(self))
        child._begin(self._followed(forks.fork_of), self._source, self)
        if values:
            try:
                child.update(values)
            except errors.DspexError as error:
                raise forks.refused(self, child, error) from None
        return child

    def commit_to_parent(
        self,
        names: Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
        force: bool = False,
    ) -> Receipt:
        """
        Set in the parent what this fork has set: *names*, or all of it, in one commit.

        Raises:
            VersionConflict: Somebody has set one of them in the parent since the fork; *force* goes over it.
        """
        parent = self._parent
        if parent is None:
            raise errors.UnknownSession(
                f"session '{self.id}' is not a fork: it has no parent to commit to.", session=self.id
            )
        writes, versions = forks.writes_back(self, names, force=force)
        # Made at once, also inside a batch of the parent: it is a batch itself.
        receipt = parent._make(Commit(writes, source=source or self._source, metadata=metadata))
        forks.note_given(self, versions, receipt)
        return receipt

    # ---- for the rooms above ----------------------------------------------------------------------

    @property
    def ledger(self) -> Ledger:
        """The session as its store sees it."""
        return self._ledger

    # ---- the life of a handle ---------------------------------------------------------------------

    def delete(self) -> None:
        """Delete the session for everyone, and close this handle."""
        store = self._ledger.store
        if store is not None:
            store.delete(self.id)
        self.close()

    def close(self) -> None:
        """
        Release what this handle holds; iterators end and programs bound through it keep their last values.

        The session itself goes on for other handles, and in a durable store.
        """
        with placed:
            if self.closed:
                return
            ledger = self._ledger
            self._ledger = ClosedLedger(ledger)
        self._end_watches()
        ledger.unsubscribe(self)
        if self._fanout is not None:  # looked at now, when no commit can make one any more
            ledger.unsubscribe(self._fanout)
            self._fanout = None
        ledger.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        if self.closed:
            return f"<Session '{self.id}' closed>"
        return f"<Session '{self.id}' at {self.revision}, {len(self.variables)} variables>"

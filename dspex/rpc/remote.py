"""A session of a server: its copy in this process, and the calls that ask the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dspex import errors, wire
from dspex.changes import Change
from dspex.commits import Commit, Receipt, Schema
from dspex.records import Record, Revision, Snapshot, check_name, frozen_metadata
from dspex.rpc import messages, requests
from dspex.rpc.extra import pb
from dspex.rpc.holds import RemoteHold, exported
from dspex.rpc.replica import Replica
from dspex.stores import refusals
from dspex.stores.export import Export

__all__ = ["RemoteLedger"]


class RemoteLedger(Replica):
    """One session of a server."""

    __slots__ = ()

    # ---- commits -----------------------------------------------------------------------------------

    def put(
        self,
        name: str,
        value: Any,
        metadata: Mapping[str, Any] | None = None,
        source: str | None = None,
        expect: int | None = None,
    ) -> Change:
        try:
            kind = self.schema.kinds[name]
            stored = kind.check(value)
        except (KeyError, TypeError, errors.InvalidValue, errors.LimitExceeded) as error:
            self.refuse(name, error)
        self.check_expect(name, expect)
        if metadata is not None:
            metadata = frozen_metadata(metadata)
        if self._error is not None:
            raise self._ended()
        link = self._link
        number, op = link.next_id(), link.op()
        frame = requests.put_call(
            number, self.id, kind, name, stored, expect=expect, source=source, metadata=metadata, op=op
        )
        receipt: Receipt = link.commit(
            number, frame, self, op=op, own=((name, stored, source),), metadata=metadata
        )
        self.drain()
        return receipt.changes[0]

    def commit(self, commit: Commit) -> Receipt:
        declare = self.schema.undeclared(commit.declare)
        if commit.declare:
            self.schema.extended(declare)  # refuses what does not agree
            self.prefer(commit.declare)
        if not declare and commit == Commit(declare=commit.declare, source=commit.source, token=commit.token):
            self.check_alive()
            return Receipt(self.epoch, self.rev)
        kinds = {**self.schema.kinds, **{one.name: one.kind for one in declare}}
        writes = self.checked(commit, declare)
        if commit.tag is not None:
            check_name(commit.tag)
        for name in () if commit.claim is None else commit.claim.names:
            self._check_text(name)
        metadata = None if commit.metadata is None else frozen_metadata(commit.metadata)
        sent = commit.replacing(
            writes=tuple(writes.values()),
            declare=declare,
            metadata=metadata,
            op=commit.op or self._link.op(),
        )
        own = tuple((write.name, write.value, write.source or commit.source) for write in writes.values())
        self.check_alive()
        link = self._link
        number = link.next_id()
        request = requests.commit_request(self.id, sent, kinds)
        frame = pb.Up(calls=[pb.Call(id=number, commit=request)]).SerializeToString()
        receipt: Receipt = link.commit(number, frame, self, op=request.op, own=own, metadata=metadata)
        self.drain()
        if declare:
            self.prefer(commit.declare)
        return receipt

    def _check_text(self, name: Any) -> None:
        if not _text(name):
            raise errors.unknown_variable(f"session '{self.id}'", name, self.schema.kinds)

    # ---- the other verbs ---------------------------------------------------------------------------

    def sync(self) -> None:
        """Return when this copy has all that was committed before the call."""
        self.check_alive()
        try:
            self._link.ping(self.id)
        except errors.UnknownSession:  # deleted since
            self.check_alive()
            raise

    def snapshot(self, tag: str | None = None) -> Snapshot:
        if tag is None:
            self.sync()
            with self._lock:
                return Snapshot(self.id, Revision(self.epoch, self.rev), dict(self.live))
        if not _text(tag):
            raise refusals.unknown_tag(self.id, tag, self.tags)
        replies = self._link.ask("snapshot", pb.SnapshotRequest(session=self.id, tag=tag))
        declared = [wire.unpack_declaration(data) for reply in replies for data in reply.declarations]
        schema = Schema({one.name: one for one in declared})
        kinds = {
            **schema.kinds,
            **{name: self.schema.kinds[name] for name in schema.kinds if name in self.schema.kinds},
        }
        records: dict[str, Record] = dict(schema.initial)
        records |= {name: self.schema.initial[name] for name in records if name in self.schema.initial}
        epoch, rev = replies[0].epoch, replies[0].rev
        for reply in replies:
            for one in reply.records:
                records[one.name] = messages.change_of(kinds, epoch, one)
        return Snapshot(self.id, Revision(epoch, rev), records)

    def history(self, name: str | None = None, since: int | None = None) -> Sequence[Change]:
        self.check_alive()
        if name is not None:
            self._check_text(name)
        replies = self._link.ask("history", pb.HistoryRequest(session=self.id, name=name, since=since))
        kinds = self.schema.kinds
        return [messages.change_of(kinds, reply.epoch, one) for reply in replies for one in reply.changes]

    @property
    def tags(self) -> Mapping[str, Revision]:
        self.check_alive()
        # One name, which may be none of the session's, keeps the answer small.
        names = list(self.live)[:1]
        replies = self._link.ask("snapshot", pb.SnapshotRequest(session=self.id, names=names))
        return {label: Revision(at.epoch, at.rev) for label, at in sorted(replies[0].tags.items())}

    def export(self) -> Export:
        self.check_alive()
        return exported(self._link, self)

    def hold(self) -> RemoteHold:
        self.check_alive()
        return RemoteHold(self._link, self.id).taken(self)

    def close(self) -> None:
        self._link.leave(self)


def _text(name: Any) -> bool:
    """Whether *name* can be sent; what cannot is the name of nothing."""
    try:
        return isinstance(name, str) and name.encode() is not None
    except UnicodeEncodeError:
        return False

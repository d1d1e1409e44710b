"""One session of a Redis store: what its users ask of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from dspex import errors
from dspex.changes import Change
from dspex.commits import Commit, Declaration, Receipt, Write
from dspex.records import Revision, Snapshot, check_name, frozen_metadata
from dspex.stores import base, refusals
from dspex.stores.export import Export
from dspex.stores.redis_copy import RedisCopy
from dspex.stores.redis_made import Made
from dspex.stores.redis_moving import EXPORT, RedisHold, export_of
from dspex.stores.redis_names import next_nonce, next_op
from dspex.stores.redis_records import (
    BAD,
    changes_of,
    commit_arguments,
    corrupt,
    declarations_of,
    pairs,
    tag_of,
    tail,
)
from dspex.stores.redis_wire import LIBRARY, frame
from dspex.stores.sqlite_rows import check_texts

__all__ = ["RedisLedger"]

ATTEMPTS = 32
"""How often a commit is sent again because others declared variables, or the history was another one."""

LOG = f"{LIBRARY}_log".encode()
TAGGED = f"{LIBRARY}_tagged".encode()


class RedisLedger(RedisCopy):
    """
    One session of a Redis store.

    Each commit is one function of the server, so it is checked where the truth is: versions, claims, limits.
    Values are checked here before, by their kinds. Reads ask nobody; `snapshot`, `history` and `tags` ask the
    server.
    """

    __slots__ = ()

    # ---- commits ------------------------------------------------------------------------------------

    def put(
        self,
        name: str,
        value: Any,
        metadata: Mapping[str, Any] | None = None,
        source: str | None = None,
        expect: int | None = None,
    ) -> Change:
        kinds = self.schema.kinds
        try:
            kind = kinds[name]
            stored = kind.check(value)
        except (KeyError, TypeError, errors.InvalidValue, errors.LimitExceeded) as error:
            self.refuse(name, error)
        self.check_expect(name, expect)
        op = next_op()
        if metadata is None and len(self._order) == len(kinds) and self._error is None:
            # What commit() does for one write and nothing else, without its lists.
            nonce, record = next_nonce(), tail(kind, stored, source, None)
            made = Made(self, ((name, stored, source),), None, nonce)
            epoch, rev, last = self._at
            said, at = name.encode(), b"%d" % rev
            wanted = b"" if expect is None else b"%d" % expect
            data = (
                b"%b$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$1\r\n0\r\n$%d\r\n%b\r\n%b"
                b"$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"
            ) % (
                self._set_head, len(epoch), epoch, len(at), at, len(last), last, len(op), op,
                len(nonce), nonce, self.peer.origin_argument,
                len(said), said, len(wanted), wanted, len(record), record,
            )  # fmt: skip
            reply = self._ask(data, made.settle, durable=True, op=op.decode())
            if type(reply) is bytes:
                changes = made.changes or self._changes(made, reply)
                sink = self._sink
                if sink is not None and sink.queue:
                    sink.drain()
                return changes[0]
            self._refused(reply, () if expect is None else (name,))
        commit = Commit((Write(name, value, expect),), source=source, metadata=metadata, op=op.decode())
        return self.commit(commit).changes[0]

    def commit(self, commit: Commit) -> Receipt:
        check_texts(commit)
        metadata = None if commit.metadata is None else frozen_metadata(commit.metadata)
        if commit.tag is not None:
            check_name(commit.tag)
        op = next_op() if commit.op is None else commit.op.encode()
        for _ in range(ATTEMPTS):
            self.check_alive()
            declare = self._to_declare(commit)
            writes = self.checked(commit, declare)
            kinds = {**self.schema.kinds, **{one.name: one.kind for one in declare}}
            self._check_known(() if commit.claim is None else commit.claim.names, kinds)
            self._check_known((name for name, _ in commit.given), kinds)
            named = commit.claim or commit.release or commit.tag or commit.op or commit.given
            if not (declare or writes or named):
                return Receipt(self.epoch, self.rev)
            own = tuple(
                (write.name, write.value, commit.source if write.source is None else write.source)
                for write in writes.values()
            )
            made = Made(self, own, metadata, next_nonce(), declare)
            epoch, rev, last = self._at
            data = self._command(
                epoch,
                b"%d" % rev,
                last,
                op,
                b"0" if commit.op is None else b"1",
                made.nonce,
                self.peer.origin,
                (commit.token or "").encode(),
                b"%d" % made.known,
                *commit_arguments(commit, writes.values(), kinds, declare, metadata),
            )
            reply = self._ask(data, made.settle, durable=True, op=op.decode())
            if type(reply) is bytes:
                return self._receipt(commit, made, reply)
            expected = [name for name, write in writes.items() if write.expect is not None]
            self._refused(reply, [*expected, *(name for name, _ in commit.given)])
        raise errors.StoreUnavailable(
            f"session '{self.id}' changed too often for a commit to get through. Try again.", session=self.id
        )

    def _to_declare(self, commit: Commit) -> tuple[Declaration, ...]:
        """What the server has to be told of before it can do *commit*."""
        new = self.schema.undeclared(commit.declare)
        if commit.declare:
            count = len(self.schema.extended(new).declarations)  # refuses what does not agree
            if count > base.NAMES:
                raise refusals.too_many_names(self.id, count, base.NAMES)
            self.prefer(commit.declare)
        known = set(self._order)
        missing = [one for name, one in self.schema.declarations.items() if name not in known]
        return (*missing, *{one.name: one for one in new}.values())

    def _check_known(self, names: Iterable[str], kinds: Mapping[str, Any]) -> None:
        for name in names:
            if not isinstance(name, str) or name not in kinds:
                raise errors.unknown_variable(f"session '{self.id}'", name, self.schema.kinds)

    def _receipt(self, commit: Commit, made: Made, reply: bytes) -> Receipt:
        if made.declare:
            self.prefer(commit.declare)
        rev = int(reply.split(b" ", 1)[0])
        changes: Sequence[Change] = ()
        if made.changes is not None:
            changes = made.changes
        elif reply.count(b" ") > 2:
            changes = self._changes(made, reply)
        return self.settled(Receipt(self.epoch, rev, tuple(changes)))

    def _changes(self, made: Made, reply: bytes) -> Sequence[Change]:
        """What a commit did that this copy had to catch up with, or that was made before."""
        first, stamp, nonce, *versions = reply.split(b" ")
        rev = int(first)
        if self.rev < rev:
            self.catch_up()
        for at, changes in list(self._recent):
            if at == rev and len(changes) == len(versions):
                return changes
        entries = self._log(rev - 1)[2]
        if entries and entries[0][0] == b"%d-%b" % (rev, nonce):
            return list(self._told(entries[:1]))
        # Its history is forgotten. Who asks again has the values; only what was there before is lost.
        own = {name: (stored, source) for name, stored, source in made.own}
        return [
            Change(
                name, *own[name][:1], int(version), rev, self.epoch, own[name][1], made.metadata, float(stamp)
            )
            for name, version in zip(own, versions, strict=False)
        ]

    # ---- asking -------------------------------------------------------------------------------------

    def snapshot(self, tag: str | None = None) -> Snapshot:
        self.check_alive()
        if tag is not None:
            return self._tagged(tag)
        self.sync()
        with self._lock:
            self.check_alive()
            return Snapshot(self.id, Revision(self.epoch, self.rev), dict(self.live))

    def sync(self) -> None:
        """Return when this copy has all that was committed before the call."""
        if not self.is_head(self._ask(self.head_frame)):
            self.catch_up()

    def _tagged(self, tag: str) -> Snapshot:
        asked = tag.encode(errors="replace") if isinstance(tag, str) else b""  # which is nobody's label
        reply = self._answered(TAGGED, asked)
        if reply[0] == b"UNKNOWN":
            raise refusals.unknown_tag(self.id, tag, [one.decode() for one in reply[1]])
        _, epoch, at, declared, records = reply
        try:
            declarations = declarations_of(pairs(declared))
            return tag_of(self.id, epoch.decode(), at, declarations, records, known=self.schema)
        except BAD as error:
            raise corrupt(self.id, self.peer.shown, error) from error

    def history(self, name: str | None = None, since: int | None = None) -> Sequence[Change]:
        self.check_alive()
        if name is not None and name not in self.schema.kinds:
            raise errors.unknown_variable(f"session '{self.id}'", name, self.schema.kinds)
        floor, known, entries = self._log(since)
        if known > len(self._order):
            self.catch_up()
        if since is not None and since < floor:
            raise refusals.forgotten(self.id, since, floor)
        return [change for change in self._told(entries) if name is None or change.name == name]

    def _log(self, since: int | None) -> tuple[int, int, list[Any]]:
        """The first revision after which the log has all, how many variables there are, and the log."""
        reply = self._answered(LOG, b"" if since is None else b"%d" % since)
        return int(reply[3]), int(reply[4]), reply[5]

    def _told(self, entries: Sequence[Any]) -> list[Change]:
        kinds, initial, epoch = self.schema.kinds, self.schema.initial, self.epoch
        try:
            return [change for _, fields in entries for change in changes_of(kinds, initial, epoch, fields)]
        except BAD as error:
            raise corrupt(self.id, self.peer.shown, error) from error

    @property
    def tags(self) -> Mapping[str, Revision]:
        self.check_alive()
        found = pairs(self._ask(frame(b"HGETALL", self.key + b"t")))
        return {
            label.decode(): Revision(self.epoch, int(at.split(b" ")[0]))
            for label, at in sorted(found.items())
        }

    def _answered(self, function: bytes, argument: bytes) -> Any:
        reply = self._ask(frame(b"FCALL", function, b"1", self.key, argument))
        while reply[0] in (b"GONE", b"BROKEN"):
            self.catch_up()
            self.check_alive()
            reply = self._ask(frame(b"FCALL", function, b"1", self.key, argument))
        return reply

    # ---- moving -------------------------------------------------------------------------------------

    def export(self) -> Export:
        self.check_alive()
        reply = self._answered(EXPORT, b"")
        self.sync()
        try:
            return export_of(self.id, reply, self.schema)
        except BAD as error:
            raise corrupt(self.id, self.peer.shown, error) from error

    def hold(self) -> RedisHold:
        self.check_alive()
        return RedisHold(self.peer.link, self.id).taken(self)

    def close(self) -> None:
        self.peer.link.leave(self)

"""What a server does for each call, whichever way it came."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import count
from types import MappingProxyType
from typing import Any, TypeVar

from dspex import errors, telemetry, wire
from dspex.commits import Receipt, Schema
from dspex.records import Record, Snapshot
from dspex.rpc import messages, requests
from dspex.rpc.auth import ANYONE, Caller
from dspex.rpc.extra import pb
from dspex.rpc.hubs import Hub
from dspex.rpc.limits import Bucket, Limits, Timers
from dspex.rpc.moves import Moves
from dspex.rpc.outbox import Outbox
from dspex.stores.base import Store, check_session_id
from dspex.stores.export import Export
from dspex.stores.memory import MemoryStore

__all__ = ["RULES", "Service"]

T = TypeVar("T")

_needs: Any = pb.needs
RULES: Mapping[str, str] = MappingProxyType(
    {
        message.name: message.GetOptions().Extensions[_needs]
        for message in pb.DESCRIPTOR.message_types_by_name.values()
        if message.GetOptions().HasExtension(_needs)
    }
)
"""What each request needs, by its message, as the .proto says. What has no rule is not answered."""

LARGE = 4 * 1024
"""Bytes from which on a value is counted."""

DECLARED = ":"
"""Before a name, which never begins so: what its declaration takes, for good, beside what its value does."""

OPS = 10_000
"""Names of commits that a session in memory remembers."""


class Service:
    """A store behind calls. Belongs to the thread of the server's loop."""

    def __init__(self, store: Store, limits: Limits, timers: Timers, threads: int) -> None:
        self.store = store
        self.limits = limits
        self.timers = timers
        self.loop = asyncio.get_running_loop()
        self.hubs: dict[str, Hub] = {}
        self.opens = Bucket(limits.opens)
        self._opening: dict[str, asyncio.Future[Hub]] = {}
        self._channels = count(1)
        self._bytes = 0
        self._pool: ThreadPoolExecutor | None = None
        self._threads = threads
        self._blocks = bool(getattr(store, "blocking", not isinstance(store, MemoryStore)))
        self.moves = Moves()
        """The sessions that come and go as a whole."""

    # ---- threads -----------------------------------------------------------------------------------

    def in_thread(self, verb: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """What *verb* gives, which may wait for a disk or a network."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._threads, "dspex-rpc-store")
        return self.loop.run_in_executor(self._pool, verb, *args)

    async def _run(self, blocks: bool, verb: Callable[..., T], *args: Any) -> T:
        return await self.in_thread(verb, *args) if blocks else verb(*args)

    async def end(self) -> None:
        """Let what runs finish, and give back all ledgers."""
        if self._opening:
            await asyncio.wait(list(self._opening.values()))
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True)
        for hold in self.moves.overdue(math.inf):
            hold.release()
        for hub in self.hubs.values():
            hub.close()
        self.hubs.clear()

    # ---- who may -----------------------------------------------------------------------------------

    def admit(self, caller: Caller, request: Any) -> None:
        """Refuse what the rules do not grant *caller*, before anything is looked at."""
        verb = RULES[request.DESCRIPTOR.name]
        session = getattr(request, "session", None)
        if session is None or (verb == ANYONE and not session):
            caller.must(ANYONE, "*")
        else:
            check_session_id(session)
            caller.must(verb, session)

    # ---- sessions ----------------------------------------------------------------------------------

    async def hub(self, session: str, *, create: bool = False, caller: Caller | None = None) -> Hub:
        """The session, opened in the store if need be."""
        while True:
            hub = self.hubs.get(session)
            if hub is not None and not hub.gone:
                return hub
            if hub is not None:
                self.drop(hub)
            opening = self._opening.get(session)
            if opening is None:
                break
            await asyncio.wait([opening])
        self.opens.take("opened sessions")
        if create and caller is not None and not caller.may("set", session):
            create = False
        if create and len(self.hubs) >= self.limits.sessions:
            raise errors.LimitExceeded(
                f"this server has {self.limits.sessions} sessions, which is its limit. Delete some.",
                limit=self.limits.sessions,
            )
        # A task of its own, so that a caller who leaves does not leave a ledger behind that nobody closes.
        opening = self._opening[session] = asyncio.ensure_future(self._open(session, create=create))
        opening.add_done_callback(partial(self._opened_one, session))
        return await asyncio.shield(opening)

    async def _open(self, session: str, *, create: bool) -> Hub:
        ledger = await self._run(self._blocks, partial(self.store.open, session, create=create))
        hub = Hub(session, next(self._channels), ledger, self.loop)
        if sizes := _sizes(ledger.schema, ledger.records, ledger.schema.declarations):
            hub.sizes = sizes
            self._bytes += sum(sizes.values())
        self.hubs[session] = hub
        return hub

    def _opened_one(self, session: str, opening: asyncio.Future[Hub]) -> None:
        del self._opening[session]
        if not opening.cancelled():
            opening.exception()  # whoever waits hears of it, if anybody does

    def drop(self, hub: Hub) -> None:
        """Forget a session that was deleted, or that nobody uses."""
        if self.hubs.get(hub.session) is hub:
            del self.hubs[hub.session]
            self._bytes -= sum((hub.sizes or {}).values())
        if hub.gone and not hub.ended:
            hub.end()
        hub.close()

    def tidy(self) -> None:
        """Look after the sessions; called now and then."""
        now = self.loop.time()
        for hub in list(self.hubs.values()):
            hub.trim()
            idle = not hub.links and now - hub.used > self.timers.idle
            if hub.gone or (idle and hub.ledger.blocking):
                self.drop(hub)
        for hold in self.moves.overdue(now):
            self.in_thread(hold.release)

    # ---- the calls ---------------------------------------------------------------------------------

    async def open(self, caller: Caller, request: pb.OpenRequest) -> Iterator[pb.Opened]:
        """The state of a session."""
        hub = await self.hub(request.session, create=request.create, caller=caller)
        hub.used = self.loop.time()
        snapshot = await self._snapshot(hub)
        return self._opened(hub, pb.START_SNAPSHOT, snapshot)

    async def subscribe(
        self, caller: Caller, request: pb.SubscribeRequest, outbox: Outbox, id: int = 0
    ) -> Hub:
        """Tell *outbox* the state of a session, as the answer to call *id*, and then what happens in it."""
        if len(outbox.sent) >= self.limits.watches:
            raise errors.LimitExceeded(
                f"a stream may watch {self.limits.watches} sessions. Open another one.",
                limit=self.limits.watches,
            )
        hub = await self.hub(request.session, create=request.create, caller=caller)
        if hub in outbox.sent:
            outbox.forget(hub)
        # Told from now on: what is committed while the snapshot is taken comes after it, or is in it.
        hub.join(outbox)
        outbox.sent[hub] = hub.rev
        try:
            start, snapshot = pb.START_SNAPSHOT, None
            if request.HasField("resume"):
                start = await self._resumable(hub, request.resume)
            if start != pb.START_RESUMED:
                snapshot = await self._snapshot(hub)
        except BaseException:
            outbox.forget(hub)
            raise
        outbox.sent[hub] = request.resume.rev if snapshot is None else snapshot.revision.rev
        outbox.tell(messages.item(id, opened=part) for part in self._opened(hub, start, snapshot))
        outbox.behind(hub)
        return hub

    async def _resumable(self, hub: Hub, resume: pb.Revision) -> pb.Start:
        ledger = hub.ledger
        if resume.epoch == ledger.epoch and resume.rev > ledger.rev:
            await self._snapshot(hub)  # told by another node, which heard of it before this one
        if resume.epoch != ledger.epoch or resume.rev > ledger.rev:
            return pb.START_OTHER_EPOCH
        if resume.rev < ledger.rev:
            try:
                await self._run(ledger.blocking, lambda: ledger.history(since=resume.rev))
            except errors.UnknownRevision:
                return pb.START_COMPACTED
        return pb.START_RESUMED

    async def _snapshot(self, hub: Hub, tag: str | None = None) -> Snapshot:
        return await self._run(hub.ledger.blocking, hub.ledger.snapshot, tag)

    def _opened(self, hub: Hub, start: pb.Start, snapshot: Snapshot | None) -> Iterator[pb.Opened]:
        # The schema is read after the snapshot, so that no record is without its kind.
        ledger = hub.ledger
        if snapshot is None:
            at, records = (ledger.epoch, hub.rev), []
        else:
            at, records = (snapshot.revision.epoch, snapshot.revision.rev), list(snapshot.records.values())
        return messages.opened(hub.session, hub.channel, start, at, schema=ledger.schema, records=records)

    def committing(self, hub: Hub, request: pb.CommitRequest, size: int) -> asyncio.Future[Receipt]:
        """Do what *request* asks for, if it is within the limits, in a thread."""
        reserved = self._within(hub, request, size)
        try:
            commit = requests.commit_of(request, hub.ledger.schema)
        except BaseException:
            self._settle(hub, reserved)
            raise
        running = self.in_thread(told, request, partial(hub.ledger.commit, commit))
        if reserved:
            running.add_done_callback(lambda _: self._settle(hub, reserved))
        return running

    def check_fits(self, session: str, export: Export) -> None:
        """Refuse a session whose values are larger than one may be, or than there is room."""
        size = sum(_sizes(export.schema, export.records, export.schema.declarations).values())
        self._check_bytes(session, size, size)

    def _check_bytes(self, session: str, size: int, more: int) -> None:
        limits = self.limits
        if size > limits.session_bytes:
            raise errors.LimitExceeded(
                f"the values of session '{session}' would take more than {limits.session_bytes} bytes.",
                limit=limits.session_bytes,
            )
        if self._bytes + more > limits.value_bytes:
            raise errors.LimitExceeded(
                f"the values of this server would take more than {limits.value_bytes} bytes.",
                limit=limits.value_bytes,
            )

    def _within(self, hub: Hub, request: pb.CommitRequest, size: int) -> Collection[str]:
        """Refuse what is beyond the limits; the names to settle when it is known what became of *request*."""
        bucket = hub.commits
        if bucket is None:
            bucket = hub.commits = Bucket(self.limits.commits)
        bucket.take(f"commits in session '{hub.session}'")
        if size > self.limits.words:
            requests.check_words(request, self.limits.words)
        return self._reserve(hub, request) if size > LARGE or hub.sizes else ()

    def _reserve(self, hub: Hub, request: pb.CommitRequest) -> Collection[str]:
        """Count what *request* would keep here, if there is room; the names that were counted."""
        if hub.sizes is None:
            hub.sizes = {}
        sizes = hub.sizes
        kinds = hub.ledger.schema.kinds
        asked = {}
        for data in request.declare:
            if len(data) >= LARGE and (name := requests.declaration_of(data).name) not in kinds:
                asked[DECLARED + name] = len(data)
        for write in request.writes:
            if len(write.value) >= LARGE or write.name in sizes:
                asked[write.name] = len(write.value)
        more = sum(size - sizes.get(name, 0) for name, size in asked.items())
        if more > 0:
            self._check_bytes(hub.session, sum(sizes.values()) + more, more)
        sizes.update(asked)
        self._bytes += more
        return asked

    def _settle(self, hub: Hub, names: Collection[str]) -> None:
        """Count what the session has of *names*, whatever was to become of them."""
        sizes = hub.sizes
        if not sizes or self.hubs.get(hub.session) is not hub:
            return
        ledger = hub.ledger
        try:
            schema, now = ledger.schema, ledger.records
            known = schema.declarations
            records = {name: now[name] for name in names if name in known}
            declared = [name.removeprefix(DECLARED) for name in names if name.startswith(DECLARED)]
            there = _sizes(schema, records, [name for name in declared if name in known])
        except errors.DspexError:  # it has ended, and everything that it has is about to be let go of
            there = {}
        for name in names:
            self._bytes += there.get(name, 0) - sizes.pop(name, 0)
        sizes.update(there)

    def commit(self, hub: Hub, request: pb.CommitRequest, size: int) -> Receipt:
        """Do what *request*, which came in *size* bytes, asks for, in this thread."""
        reserved = self._within(hub, request, size)
        if not reserved and telemetry.active is None:
            return self._made(hub, request)
        try:
            return told(request, partial(self._made, hub, request))
        finally:
            self._settle(hub, reserved)

    def _made(self, hub: Hub, request: pb.CommitRequest) -> Receipt:
        ledger, ops = hub.ledger, hub.ops
        op = request.op
        # Such a ledger lives no longer than this hub, which can therefore remember what was done.
        if op and ops is not None and op in ops:
            rev = ops[op]
            done = ledger.history(since=rev - 1) if rev > 0 else ()
            return Receipt(ledger.epoch, abs(rev), tuple(change for change in done if change.rev == rev))
        if requests.is_put(request):
            # Most of what comes, and `put` takes a tenth of the time.
            change = ledger.put(*requests.put_of(request, ledger.schema))
            receipt = Receipt(change.epoch, change.rev, (change,))
        else:
            receipt = ledger.commit(requests.commit_of(request, ledger.schema).replacing(op=None))
        if op:
            if ops is None:
                ops = hub.ops = {}
            ops[op] = receipt.rev if receipt.changes else -receipt.rev
            if len(ops) > OPS:
                del ops[next(iter(ops))]
        return receipt

    async def commit_unary(self, caller: Caller, request: pb.CommitRequest) -> Iterator[pb.CommitReply]:
        """One atomic write."""
        hub = await self.hub(request.session)
        hub.used = self.loop.time()
        size = request.ByteSize()
        if not hub.ledger.blocking:
            return messages.replies_with_changes(hub.ledger.schema, self.commit(hub, request, size))
        # A caller who leaves does not take the commit back, which has to be counted when it is made.
        receipt = await asyncio.shield(self.committing(hub, request, size))
        return messages.replies_with_changes(hub.ledger.schema, receipt)

    async def snapshot(self, caller: Caller, request: pb.SnapshotRequest) -> Iterator[pb.SnapshotReply]:
        """All values at one revision."""
        hub = await self.hub(request.session)
        hub.used = self.loop.time()
        snapshot = await self._snapshot(hub, request.tag if request.HasField("tag") else None)
        for name in request.names:
            if name not in snapshot.records:
                raise errors.unknown_variable(f"session '{hub.session}'", name, snapshot.records)
        tags = await self._run(hub.ledger.blocking, lambda: hub.ledger.tags)
        return messages.snapshot_replies(hub.ledger.schema, snapshot, request.names, tags)

    async def history(self, caller: Caller, request: pb.HistoryRequest) -> Iterator[pb.HistoryReply]:
        """The changes that are still known."""
        hub = await self.hub(request.session)
        hub.used = self.loop.time()
        name = request.name if request.HasField("name") else None
        since = request.since if request.HasField("since") else None
        changes = await self._run(hub.ledger.blocking, hub.ledger.history, name, since)
        return messages.history_replies(hub.ledger.schema, hub.ledger.epoch, changes)

    async def list_sessions(self, caller: Caller, request: pb.ListRequest) -> Iterator[pb.ListReply]:
        """The sessions that *caller* may read."""
        infos = await self._run(self._blocks, self.store.sessions)
        return messages.session_replies(info for info in infos if caller.may("read", info.id))

    async def delete_session(self, caller: Caller, request: pb.DeleteRequest) -> Iterator[pb.DeleteReply]:
        """Delete a session for everyone."""
        await self._run(self._blocks, self.store.delete, request.session)
        hub = self.hubs.get(request.session)
        if hub is not None:
            hub.end()
            self.drop(hub)
        return iter((pb.DeleteReply(),))


def _sizes(schema: Schema, records: Mapping[str, Record], declared: Iterable[str]) -> dict[str, int]:
    """What is large: of *records* the values that were set, and the declarations of the names *declared*."""
    kinds = schema.kinds
    found = {}
    for name, record in () if schema.fixed else records.items():
        kind = kinds[name]
        if record.version and not kind.fixed and (size := kind.size(record.value)) >= LARGE:
            found[name] = size
    for name in declared:
        if (size := len(wire.pack_declaration(schema.declarations[name]))) >= LARGE:
            found[DECLARED + name] = size
    return found


def told(request: pb.CommitRequest, commit: Callable[[], Receipt]) -> Receipt:
    """What *commit* gives, within the trace of the client that asked for it, if anybody is told."""
    if telemetry.active is None:
        return commit()
    with telemetry.active.served(request.trace, request.session) as tell:
        receipt = commit()
        tell(receipt)
    return receipt

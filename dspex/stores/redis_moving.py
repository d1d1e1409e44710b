"""Sessions of a Redis store as a whole: exported, held back, restored."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.changes import Change
from dspex.commits import Schema
from dspex.kinds.plain import thaw
from dspex.records import Record, Revision
from dspex.stores import base, refusals
from dspex.stores.base import Hold
from dspex.stores.claimed import Held
from dspex.stores.export import Export
from dspex.stores.pieces import check_same
from dspex.stores.redis_names import next_nonce
from dspex.stores.redis_records import KEY, change_of, changes_of, declarations_of, pairs, tag_of, tail
from dspex.stores.redis_wire import LIBRARY, frame
from dspex.wire import pack_declaration

if TYPE_CHECKING:
    from dspex.kinds import Kind
    from dspex.stores.redis import RedisStore
    from dspex.stores.redis_ledger import RedisLedger
    from dspex.stores.redis_link import Link

__all__ = ["EXPORT", "RedisHold", "export_of", "restored"]

EXPORT, STAGE, ARRIVE, HOLD, RELEASE, FORWARD, ABANDON = (
    f"{LIBRARY}_{name}".encode()
    for name in ("export", "stage", "arrive", "hold", "release", "forward", "abandon")
)

MOST = 10**13
"""The largest number that the functions of the server write with all its digits, with room to count on."""

PART = 1024 * 1024
"""Bytes that are sent at once, or one entry: so long the server does nothing else."""

ENTRIES = 500
"""The same, counted."""

LEAVING = 1.0
"""Seconds after which who has closed an empty session is not heard any more."""

_rev_of = attrgetter("rev")


def export_of(session_id: str, reply: Any, known: Schema) -> Export:
    """What the server says that a session is, by *known* declarations where there are: they know classes."""
    _, head, declared, records, entries, claims, labels = reply
    epoch, rev, _, _, floor, *_, created = head.decode().split(" ")
    declarations = declarations_of(pairs(declared))
    schema = Schema({one.name: known.declarations.get(one.name, one) for one in declarations})
    kinds, now = schema.kinds, time.monotonic()
    return Export(
        schema,
        Revision(epoch, int(rev)),
        float(created),
        {
            name.decode(): change_of(kinds, epoch, name.decode(), data)
            for name, data in pairs(records).items()
            if name
        },
        [change for _, fields in entries for change in changes_of(kinds, schema.initial, epoch, fields)],
        int(floor),
        {
            label.decode(): tag_of(session_id, epoch, at, declarations, then, known=schema)
            for label, at, then in labels
        },
        [
            (name.decode(), Held(token.decode(), owner.decode(), now + float(left)))
            for name, token, owner, left in sorted(claims, key=lambda claim: (claim[0], len(claim[1])))
        ],
    )


class RedisHold(Hold):
    """Keeps a session of a Redis store from committing. The server forgets it after a minute."""

    def __init__(self, link: Link, session: str) -> None:
        self._link = link
        self._session = session
        self._key = KEY % session.encode()
        self._holder = os.urandom(16).hex().encode()

    def ask(self, function: bytes, *arguments: bytes, durable: bool = False) -> Any:
        """What a function of the server says to who holds the session, or is to."""
        data = frame(b"FCALL", function, b"1", self._key, self._holder, *arguments)
        return self._link.ask(self._key, data, durable=durable)

    def ask_staged(self, function: bytes) -> Any:
        """The same of what was put together, and has not taken its place yet."""
        key = self._key + b"r:" + self._holder + b":"
        return self._link.ask(self._key, frame(b"FCALL", function, b"1", key))

    def stands_on(self, ledger: RedisLedger) -> None:
        """Be the hold of *ledger*."""
        self.ledger = ledger
        self._catch_up = ledger.catch_up

    def taken(self, ledger: RedisLedger) -> RedisHold:
        """Return this hold when the server has it, or raise."""
        self.stands_on(ledger)
        try:
            reply = self.ask(HOLD)
        except errors.StoreUnavailable:
            self.release()  # it may have it all the same
            raise
        if reply == 1:
            return self
        if reply[0] == b"MOVING":
            raise refusals.moving(self._session)
        ledger.catch_up()
        ledger.check_alive()
        return self.taken(ledger)  # another history began, and this copy has told the server what it had

    def release(self) -> None:
        if not self.forwarded:
            with suppress(errors.DspexError):  # it ends by itself
                self.ask(RELEASE)

    def forward(self, url: str, session_id: str) -> None:
        try:
            reply = self.ask(FORWARD, session_id.encode(), url.encode(), durable=True)
        except (errors.DeadlineExceeded, errors.StoreUnavailable) as error:
            if not self._is_forwarded(error):
                raise
            reply = 1
        if reply != 1:
            raise refusals.not_held(self._session)
        self.forwarded = True
        with suppress(errors.DspexError):  # the copy hears that it has ended
            self._catch_up()

    def _is_forwarded(self, error: errors.DspexError) -> bool:
        """Whether it has ended although there was an *error*; if it has not, it never will by that call."""
        try:
            if not isinstance(error, errors.DurabilityUnknown):
                if self.ask(RELEASE) == 1:
                    return False
                where = self._key + b"m"
                moved = self._link.ask(self._key, frame(b"GET", where))
                return moved is not None and moved.startswith(self._holder)
        except errors.DspexError:
            pass
        raise errors.StoreUnavailable(
            f"{error.message} Whether session '{self._session}' has ended there is not known.",
            **error.facts,
            unknown=True,
        ) from error


def restored(store: RedisStore, session_id: str, export: Export) -> RedisHold:
    """Make a session of *export*, whole and on hold, or leave no trace of it."""
    _check_numbers(session_id, export)
    hold = RedisHold(store.link, session_id)
    try:
        for part, arguments in _parts(export):
            hold.ask(STAGE, part, *arguments)
        _check_staged(hold, session_id, export)
        _arrive(hold, session_id)
        ledger = store.open(session_id, create=False)
    except BaseException:
        with suppress(errors.DspexError):  # else it ends by itself
            hold.ask(ABANDON)
        raise
    ledger.prefer(export.schema.declarations.values())
    hold.stands_on(ledger)
    return hold


def _check_numbers(session_id: str, export: Export) -> None:
    versions = (one.version for one in (*export.records.values(), *export.history))
    largest = max(export.revision.rev, *versions, 0)
    if largest > MOST:
        raise errors.LimitExceeded(
            f"session '{session_id}' has counted to {largest}; a Redis store counts to {MOST}.", limit=MOST
        )


def _check_staged(hold: RedisHold, session_id: str, export: Export) -> None:
    reply = hold.ask_staged(EXPORT)
    if reply[0] == b"EXPORT":
        check_same(export, export_of(session_id, reply, export.schema))


def _arrive(hold: RedisHold, session_id: str) -> None:
    due = time.monotonic() + LEAVING
    while (reply := hold.ask(ARRIVE, durable=True)) != 1:
        if reply == 0:
            raise errors.StoreUnavailable(
                f"the server lost what it was given of session '{session_id}': another one has taken over. "
                "The session is where it was.",
                session=session_id,
            )
        _, epoch, rev, used = reply
        if used or time.monotonic() > due:
            raise refusals.exists(session_id, Revision(epoch.decode(), int(rev)))
        time.sleep(0.02)


# ---- what is sent ---------------------------------------------------------------------------------------


def _parts(export: Export) -> Iterator[tuple[bytes, list[bytes]]]:
    """What is sent to put *export* together. The head, which says that all is there, comes last."""
    kinds, names = export.schema.kinds, enumerate(export.schema.declarations.values())
    declared = ((one.name.encode(), b"%d %b" % (at, pack_declaration(one))) for at, one in names)
    yield from _calls(b"d", declared)
    yield from _calls(b"v", _fields(kinds, export.records.values()))
    log = [_entry(kinds, list(changes)) for _, changes in groupby(export.history, key=_rev_of)]
    yield from _calls(b"l", log)
    for label, at in export.tags.items():
        place = b"%d %d" % (at.revision.rev, len(at))
        yield from _calls(b"t:" + label.encode(), _fields(kinds, at._records.values()))
        yield from _calls(b"t", [(label.encode(), place)])
    now = time.monotonic()
    claims = (
        (name.encode(), held.token.encode(), held.owner.encode(), b"%.6f" % (held.until - now))
        for name, held in export.claims
    )
    yield from _calls(b"c", claims)
    yield b"v", [b"", _head(export, log)]


def _calls(part: bytes, items: Iterable[tuple[bytes, ...]]) -> Iterator[tuple[bytes, list[bytes]]]:
    found: list[bytes] = []
    size = count = 0
    for item in items:
        found += item
        size += sum(map(len, item))
        count += 1
        if size > PART or count == ENTRIES:
            yield part, found
            found, size, count = [], 0, 0
    if found:
        yield part, found


def _fields(kinds: Mapping[str, Kind[Any]], records: Iterable[Record]) -> Iterator[tuple[bytes, bytes]]:
    return ((one.name.encode(), _record(kinds[one.name], one)) for one in records if one.version)


def _record(kind: Kind[Any], one: Record) -> bytes:
    why = None if one.metadata is None else thaw(one.metadata)
    written = tail(kind, one.value, one.source, why)
    return b"%d %d %b %b" % (one.version, one.rev, repr(one.time).encode(), written)


def _entry(kinds: Mapping[str, Kind[Any]], changes: Sequence[Change]) -> tuple[bytes, ...]:
    """One commit as the log has it: id, number of fields, fields."""
    fields: list[bytes] = []
    for one in changes:
        kind, version = kinds[one.name], one.version - 1
        before = b"%d 0 0 %b" % (version, tail(kind, one.old, None, None)) if version else b""
        fields += one.name.encode(), _record(kind, one), b"-", before
    return b"%d-%b" % (changes[0].rev, next_nonce()), b"%d" % len(fields), *fields


def _head(export: Export, log: Sequence[tuple[bytes, ...]]) -> bytes:
    at, count = export.revision, len(export.history)
    nonce = next_nonce() if at.rev else b"0"
    if log:
        newest, _, last = log[-1][0].partition(b"-")
        nonce = last if int(newest) == at.rev else nonce
    size = sum(len(field) for entry in log for field in entry[3::2])
    limit = max(3 * base.HISTORY, count + base.HISTORY)
    claimed = bool(export.claims)
    words = (at.epoch, at.rev, nonce.decode(), len(export.schema.declarations), export.start)
    counted = (count, size, limit, 0, 0, 0, int(claimed), repr(export.created))
    return " ".join(map(str, (*words, *counted))).encode()

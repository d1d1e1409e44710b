"""Sessions in Redis or Valkey: one source of truth for any number of machines."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING
from zlib import crc32

from dspex import errors
from dspex.records import Revision, SessionInfo
from dspex.stores.base import Store, check_session_id
from dspex.stores.redis_ledger import RedisLedger
from dspex.stores.redis_link import Link
from dspex.stores.redis_moving import RedisHold, restored
from dspex.stores.redis_records import KEY, corrupt
from dspex.stores.redis_url import Location, Timing
from dspex.stores.redis_wire import LIBRARY, frame

if TYPE_CHECKING:
    from dspex.stores.export import Export

__all__ = ["RedisStore", "acl", "install"]

INDEX = 16
"""Sets that the ids of all sessions are spread over, so that none is large in a cluster."""

DELETE = f"{LIBRARY}_delete".encode()

COMMANDS = (
    "copy del exists expire fcall get hdel hello hexists hget hgetall hkeys hlen hmget hset persist ping "
    "pubsub|shardnumsub rename role sadd set sismember smembers spublish srem ssubscribe sunsubscribe time "
    "wait waitaof xadd xdel xrange"
)
"""All that a store, and the functions that it calls, ask of a server."""

_links: dict[Location, Link] = {}
_lock = threading.Lock()


def _link(location: Location) -> Link:
    with _lock:
        link = _links.get(location)
        if link is None or link.error is not None:
            link = _links[location] = Link(location)
        return link


class RedisStore(Store):
    """
    Sessions in Redis ≥ 7.0 or Valkey ≥ 8.0.

    Args:
        url: `redis://user:password@host:port/db`, `rediss://…` for TLS, `redis+unix:///path`,
            `redis+sentinel://host:port,host:port?service=name`, `redis+cluster://host:port,host:port`; with
            `?durability=memory`, `fsynced` or `replicated:1`, `?ca=`, `?deadline=`, `?max-staleness=`.
        timing: How time is kept.

    All stores of a process with the same URL share two connections: one for commands, one that hears.
    """

    blocking = True

    def __init__(self, url: str, *, timing: Timing | None = None) -> None:
        self._location = Location.parse(url, timing=timing)
        self._closed = False

    @property
    def link(self) -> Link:
        """The connections."""
        if self._closed:
            raise errors.StoreUnavailable(
                f"this store of {self._location.shown} was closed. Open another one.",
                address=self._location.shown,
            )
        return _link(self._location)

    @property
    def url(self) -> str:
        """Where the sessions are, without a login: what is said of those that moved there."""
        return self._location.shown

    @property
    def status(self) -> str:
        """`LIVE`, `STALE` while there is no contact, or `CLOSED`."""
        if self._closed:
            return "CLOSED"
        states = {peer.status for peer in self.link.all_peers()}
        return states.pop() if len(states) == 1 else "STALE"

    def open(self, session_id: str, *, create: bool = True) -> RedisLedger:
        check_session_id(session_id)
        link = self.link
        try:
            ledger = link.open(
                partial(RedisLedger, store=self, session_id=session_id), session_id, create=create
            )
        except errors.UnknownSession:
            raise self._unknown(session_id) from None
        # After the session is there: a list may name too many, which are left out, but never too few.
        # Looked at first, because a server that is full can still be read.
        if not self._index(session_id, b"SISMEMBER"):
            self._index(session_id, b"SADD")
        return ledger

    def sessions(self) -> Sequence[SessionInfo]:
        found = []
        for session_id in self._ids():
            values = KEY % session_id.encode() + b"v"
            head = self.link.ask(values, frame(b"HGET", values, b""))
            if head is not None:
                try:
                    epoch, rev, _, count, *_, created = head.decode().split(" ")
                    at = Revision(epoch, int(rev))
                    found.append(SessionInfo(session_id, at, int(count), float(created)))
                except ValueError as error:
                    raise corrupt(session_id, self._location.shown, error) from None
        return found

    def delete(self, session_id: str) -> None:
        check_session_id(session_id)
        self._index(session_id, b"SREM")
        key = KEY % session_id.encode()
        if not self.link.ask(key, frame(b"FCALL", DELETE, b"1", key), durable=True):
            raise self._unknown(session_id)
        ledger = self.link.ledgers.get(session_id)
        if ledger is not None:
            ledger.catch_up_or_end()

    def restore(self, session_id: str, export: Export) -> RedisHold:
        return restored(self, check_session_id(session_id), export)

    def close(self) -> None:
        """Take no more calls. The connections end when nobody else in this process uses them."""
        if self._closed:
            return
        link = self.link
        self._closed = True
        if not link.ledgers:
            link.close()

    def _ids(self) -> list[str]:
        found: set[bytes] = set()
        for number in range(INDEX):
            key = _index_key(number)
            found |= set(self.link.ask(key, frame(b"SMEMBERS", key)))
        return sorted(one.decode() for one in found)

    def _index(self, session_id: str, verb: bytes) -> int:
        key = _index_key(crc32(session_id.encode()) % INDEX)
        return int(self.link.ask(key, frame(verb, key, session_id.encode())))

    def _unknown(self, session_id: str) -> errors.UnknownSession:
        return errors.UnknownSession(
            f"the store has no session '{session_id}'.{errors.did_you_mean(session_id, self._ids())}",
            session=session_id,
        )

    def __repr__(self) -> str:
        return f"<RedisStore {self._location.shown} {self._location.durability}>"


def _index_key(number: int) -> bytes:
    return b"dx:sessions:%d" % number


def install(url: str) -> None:
    """
    Put the library of server functions where *url* says; a step for an administrator.

    Stores whose user may do so do it themselves.
    """
    link = Link(Location.parse(url))
    try:
        for peer in link.all_peers():
            peer.calls.install()
    finally:
        link.close()


def acl(user: str = "dspex") -> str:
    """The command that makes *user* one who may use stores and do nothing else; put a password into it."""
    commands = " ".join(f"+{name}" for name in COMMANDS.split())
    return f"ACL SETUSER {user} on >PASSWORD resetkeys resetchannels ~dx:* &dx:* -@all {commands}"


@atexit.register
def _close_all() -> None:
    for link in list(_links.values()):
        link.close()


def _forked() -> None:
    global _lock  # noqa: PLW0603 - it may be held by a thread that is not here
    _lock = threading.Lock()
    for link in _links.values():
        link.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "install":
        install(sys.argv[2])
    elif sys.argv[1:2] == ["acl"]:
        print(acl(*sys.argv[2:3]))  # noqa: T201 - a command
    else:
        sys.exit("usage: python -m dspex.stores.redis install URL | acl [USER]")

"""All servers that one URL names, and which of them has a session."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.stores.redis_peer import Peer
from dspex.stores.redis_records import KEY
from dspex.stores.redis_wire import Address, Lost, Refused, Wire, find_primary, slot_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from dspex.stores.redis_copy import RedisCopy
    from dspex.stores.redis_ledger import RedisLedger
    from dspex.stores.redis_url import Location

__all__ = ["Link"]


class Link:
    """
    The servers of one location: one that is named, the one that the Sentinels name, or those of a cluster.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self.guard = threading.RLock()
        self.peers: dict[Address | None, Peer] = {}
        self.ledgers: dict[str, RedisLedger] = {}
        self._slots: list[tuple[int, int, Address]] = []
        """First and last slot, and who has them."""

    # ---- which server -------------------------------------------------------------------------------

    def peer_of(self, session_id: str) -> Peer:
        """The server that has a session, or would have it."""
        return self.peer_of_key(KEY % session_id.encode())

    def peer_of_key(self, key: bytes) -> Peer:
        """The server that has a key, or would have it."""
        if self.location.how != "cluster":
            return self._peer(None)
        slot = slot_of(key)
        if not self._slots:
            self.look_around()
        for first, last, address in self._slots:
            if first <= slot <= last:
                return self._peer(address)
        raise errors.StoreUnavailable(
            f"no server of the cluster at {self.location.shown} has slot {slot}.", address=self.location.shown
        )

    def all_peers(self) -> list[Peer]:
        """All servers that have sessions."""
        if self.location.how != "cluster":
            return [self._peer(None)]
        if not self._slots:
            self.look_around()
        return [self._peer(address) for address in dict.fromkeys(one for _, _, one in self._slots)]

    def _peer(self, address: Address | None) -> Peer:
        with self.guard:
            found = self.peers.get(address)
            if found is None:
                found = self.peers[address] = Peer(self, address)
            return found

    def look_around(self) -> None:
        """Ask the cluster who has which slots."""
        due = time.monotonic() + self.location.timing.deadline
        why = ""
        for host in (*self.location.hosts, *filter(None, list(self.peers))):
            try:
                wire = Wire(self.location, host, max(0.1, due - time.monotonic()))
            except Lost as error:
                why = str(error)
                continue
            try:
                reply = wire.ask(b"CLUSTER", b"SLOTS")
            except Lost as error:
                why = str(error)
                continue
            finally:
                wire.close()
            if isinstance(reply, Refused):
                raise errors.StoreUnavailable(
                    f"the server at {self.location.shown} is not one of a cluster: {reply}",
                    address=self.location.shown,
                )
            if reply:
                self._slots = [
                    (first, last, (primary[0].decode() or host[0], primary[1]))
                    for first, last, primary, *_ in reply
                ]
                return
        raise errors.StoreUnavailable(
            f"no server of the cluster at {self.location.shown} says who has what ({why or 'nobody has'}).",
            address=self.location.shown,
        )

    def connect(self, peer: Peer, timeout: float) -> Wire:
        """A connection for *peer*."""
        location = self.location
        address = peer.address
        if location.how == "sentinel":
            address = find_primary(location)
        try:
            return Wire(location, address, timeout)
        except Lost:
            if location.how == "cluster":
                self._slots = []  # who has what may have changed
            raise

    def moved(self, ledger: RedisCopy) -> bool:
        """Find out which server of the cluster has a session now; whether that is another one."""
        self.look_around()
        with self.guard:
            before, after = ledger.peer, self.peer_of(ledger.id)
            if after is before:
                return False
            ledger.peer = after
        before.leave(ledger)
        after.join(ledger)
        return True

    def ask(self, key: bytes, data: bytes, *, durable: bool = False) -> Any:
        """The reply to a command about *key*, from the server that has it."""
        for _ in range(8):
            peer = self.peer_of_key(key)
            try:
                return peer.calls.call(data, durable=durable and peer.durable)
            except Refused:  # another server has it now
                self.look_around()
                peer.pause(self.location.timing.backoff[0])
        raise self.peer_of_key(key).unreached()

    # ---- sessions -----------------------------------------------------------------------------------

    def open(self, make: Callable[[Peer], RedisLedger], session_id: str, *, create: bool) -> RedisLedger:
        """The session, kept up to date from now on."""
        with self.guard:
            ledger = self.ledgers.get(session_id)
            new = ledger is None
            if ledger is None:
                ledger = self.ledgers[session_id] = make(self.peer_of(session_id))
            ledger.handles += 1
            ledger.create = ledger.create or create
        try:
            if new:
                ledger.peer.join(ledger)
            ledger.opened(self.location.timing.deadline)
        except BaseException:
            self.leave(ledger)
            raise
        return ledger

    def leave(self, ledger: RedisCopy) -> None:
        """One handle less; with the last one nothing of it is heard any more."""
        with self.guard:
            ledger.handles -= 1
            if ledger.handles > 0:
                return
        self.forget(ledger)

    def forget(self, ledger: RedisCopy) -> None:
        """Hear no more of *ledger*."""
        with self.guard:
            if self.ledgers.get(ledger.id) is not ledger:
                return
            del self.ledgers[ledger.id]
        ledger.peer.leave(ledger)

    # ---- life ---------------------------------------------------------------------------------------

    def install(self, peer: Peer) -> None:
        """Put the library into a server, from the thread that hears: it must not wait for itself."""
        peer.calls.load()  # if there was no answer, the next question finds that out

    @property
    def error(self) -> errors.DspexError | None:
        """Why no connection is possible."""
        return next((peer.error for peer in self.peers.values() if peer.error is not None), None)

    def close(self) -> None:
        """Let go of all connections."""
        for peer in list(self.peers.values()):
            peer.close()

    def forked(self) -> None:
        """In a child of fork."""
        self.guard = threading.RLock()
        for peer in list(self.peers.values()):
            peer.forked()

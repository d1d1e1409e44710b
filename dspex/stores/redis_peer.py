"""One server: its commands, its pushes, and whether it is there."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.stores.redis_calls import LATER, Calls, refusal
from dspex.stores.redis_names import new_origin
from dspex.stores.redis_readers import Readers
from dspex.stores.redis_records import pairs
from dspex.stores.redis_wire import MISSING, Address, Lost, Push, Refused, Wire, frame

if TYPE_CHECKING:
    from dspex.stores.redis_copy import RedisCopy
    from dspex.stores.redis_link import Link
    from dspex.stores.redis_url import Location

__all__ = ["Peer"]

_log = logging.getLogger("dspex.redis")

_chance = random.Random()  # noqa: S311 - spreads clients; the sequence of the module is its user's

POLLS = 1_000
"""Sessions whose newest revision is asked for in one second at most; with more of them each waits longer."""

Handler = Callable[[Any], object]


class Peer(Readers):
    """
    One server with all sessions of this process that live there.

    A connection for commands, and one that hears: what is published is a hint. That one also asks for the
    newest revision of every session, again and again; what the hints did not tell is read from the log. No
    answer means that the connection is dead, whatever TCP says.

    One thread reads. It applies what comes, and runs the callbacks; what comes meanwhile another one reads.
    """

    def __init__(self, link: Link, address: Address | None) -> None:
        self.link = link
        self.location: Location = link.location
        self.address = address
        self.ledgers: dict[str, RedisCopy] = {}
        timing, limit = self.location.timing, self.location.max_staleness
        self.silence = min(timing.silence, limit)
        self.every = min(timing.poll, limit / 3)
        self._reset()

    def _reset(self) -> None:
        _chance.seed()  # a child of fork has that of its parent
        self.calls = Calls(self)
        self.origin = new_origin()
        """By which it knows what it has published itself."""
        self.origin_argument = b"$%d\r\n%b\r\n" % (len(self.origin), self.origin)
        self.reset_threads()
        self.error: errors.DspexError | None = None
        """Why there will never be a connection."""
        self.live = False
        self.fresh = time.monotonic()
        self.polls = self.resyncs = self.cuts = 0
        """How often was asked; how often something had to be read that no hint told; connections lost."""
        self._wire: Wire | None = None
        self._expected: deque[tuple[str, Handler]] = deque()
        self._outgoing: deque[tuple[bytes, tuple[tuple[str, Handler], ...]]] = deque()
        self._channels: dict[bytes, RedisCopy] = {}
        self._polled: float | None = None
        """When the poll was sent that is not answered yet."""
        self._due = 0.0
        self._left = time.monotonic()
        self._attempts = 0
        self._why = ""

    @property
    def lends(self) -> bool:
        """Whether nothing is awaited on the connection that hears, and a call has as long there."""
        resting = not (self._expected or self._outgoing or self._overheard)
        return self.live and resting and self.silence <= self.location.timing.deadline

    @property
    def durable(self) -> bool:
        """Whether commits wait for more than the server's memory."""
        return self.location.durability.level != "memory"

    @property
    def shown(self) -> str:
        """Where it is, for people."""
        return self.location.shown

    @property
    def status(self) -> str:
        """`LIVE`, `STALE` or `CLOSED`."""
        return "CLOSED" if self.error is not None else "LIVE" if self.live else "STALE"

    def age(self) -> float:
        """Seconds since the copies were known to be up to date."""
        return time.monotonic() - self.fresh

    def unreached(self) -> errors.StoreUnavailable:
        """What is said when there was no contact in time."""
        why = f" ({errors.shown(self._why)[1:-1]})" if self._why else ""
        return errors.StoreUnavailable(
            f"no contact with the server at {self.shown} within {self.location.timing.deadline:g} s{why}.",
            address=self.shown,
        )

    # ---- for all threads ----------------------------------------------------------------------------

    def connect(self, timeout: float) -> Wire:
        """A new connection to the server; to the one that is the primary now."""
        wire = self.link.connect(self, timeout)
        if wire.is_replica:
            wire.close()
            raise Lost(f"{self.shown} is a replica, which has only a copy")
        return wire

    def begin(self) -> None:
        self._due = 0.0

    def finish(self) -> None:
        self.ear.take()  # from who has borrowed it
        self._lost("closed")
        self.ear.give()

    def pause(self, seconds: float) -> None:
        """Wait, unless this ends."""
        self._stop.wait(seconds)

    def drop(self, why: str) -> None:
        """Use no connection any more that there is: the server is not the primary."""
        self.calls.drop()
        wire = self._wire
        if wire is not None:
            self._why = why
            wire.abort()

    def join(self, ledger: RedisCopy) -> None:
        """Keep *ledger* up to date from now on."""
        with self.guard:
            self.ledgers[ledger.id] = ledger
            self._start()
        self._later(ledger)

    def leave(self, ledger: RedisCopy) -> None:
        """Do so no more."""
        with self.guard:
            if self.ledgers.get(ledger.id) is ledger:
                del self.ledgers[ledger.id]
            self._left = time.monotonic()
        self._channels.pop(ledger.channel, None)
        self.send(frame(b"SUNSUBSCRIBE", ledger.channel), ("sunsubscribe", _nothing))

    def refresh(self, ledger: RedisCopy) -> None:
        """Ask what *ledger* misses, unless that is being asked already."""
        if not ledger.asking:
            ledger.asking = True
            self.resyncs += 1
            self.send(ledger.since_frame(heard=True), ("since", ledger.answered))

    def send(self, data: bytes, *expected: tuple[str, Handler]) -> None:
        """Send *data* on the connection that hears, if there is one; its answers go to those handlers."""
        self._outgoing.append((data, expected))
        self._hasten()

    def _hasten(self) -> None:
        if threading.get_ident() != self._reader:
            self.ear.wake()

    def _later(self, ledger: RedisCopy) -> None:
        """Subscribe, then ask: in this order on one connection nothing can be missed in between."""
        self._channels[ledger.channel] = ledger
        ledger.asking = True
        self.send(
            frame(b"SSUBSCRIBE", ledger.channel) + ledger.since_frame(heard=True),
            ("ssubscribe", ledger.subscribed),
            ("since", ledger.answered),
        )

    def close(self) -> None:
        """Let go of everything, and wait until the thread has ended."""
        self.closed = True
        self._stop.set()
        self._hasten()
        me = threading.current_thread()
        for thread in list(self._threads):
            if thread is not me:
                thread.join(5)
        self.calls.close()

    def forked(self) -> None:
        """In a child of fork: no thread runs, and the connections are the parent's."""
        wires = [self._wire, self.calls._wire]
        self.ear.close()
        self._reset()
        for wire in wires:
            if wire is not None:
                wire.close()
        for ledger in self.ledgers.values():
            ledger.asking = False
            ledger.guard(self._revive)

    def _revive(self) -> None:
        """The first look at a value in a child: connect, and read on."""
        with self.guard:
            ledgers = list(self.ledgers.values())
        for ledger in ledgers:
            ledger.guard(None)
        self._start()
        for ledger in ledgers:
            ledger.catch_up()

    # ---- for who reads ------------------------------------------------------------------------------

    def _turn(self, *, heard: bool) -> list[RedisCopy]:
        """Read what there is, if any, and do what is due; whose callbacks are to be run."""
        try:
            if self._wire is None and not self._connected():
                return []
            return self._step(heard=heard)
        except Lost as error:
            self._lost(str(error))
        except errors.DspexError as error:
            self._fail(error)
        except Exception as error:
            about = {"dspex.address": self.shown}
            _log.exception("what came from %s was not understood", self.shown, extra=about)
            self._lost(str(error))
        return []

    def _connected(self) -> bool:
        wait = self._due - time.monotonic()
        if wait > 0:
            self._stop.wait(min(wait, 0.25))
            return False
        wire = self.connect(self.silence)
        wire.wait_at_most(self.silence)
        self._wire = wire
        self.ear.hear(wire.sock)
        self._expected.clear()
        self._outgoing.clear()
        self._overheard.clear()
        self._polled = None
        self._due = 0.0
        with self.guard:
            ledgers = list(self.ledgers.values())
        for ledger in ledgers:
            self._later(ledger)
        self._poll(time.monotonic())
        return True

    def _lost(self, why: str) -> None:
        wire, self._wire = self._wire, None
        self.live = False
        self._why = why
        for ledger in list(self.ledgers.values()):
            ledger.asking = False
        if wire is not None:
            self.cuts += 1
            self.ear.forget()
            wire.close()
        low, high = self.location.timing.backoff
        self._due = time.monotonic() + _chance.uniform(0, min(high, low * 2**self._attempts))
        self._attempts = min(self._attempts + 1, 30)
        for ledger in list(self.ledgers.values()):
            if not ledger.guarded:
                ledger.guard(self._look)

    def _fail(self, error: errors.DspexError) -> None:
        """There will never be a connection: say so to all."""
        self._lost(error.message)
        with self.guard:
            self.error = error
            self.closed = True
            ledgers = list(self.ledgers.values())
            self.ledgers.clear()
        for ledger in ledgers:
            ledger.end(error)

    def _step(self, *, heard: bool) -> list[RedisCopy]:
        wire = self._wire
        assert wire is not None
        todo: dict[int, RedisCopy] = {}
        while heard or self._overheard:
            if heard:
                wire.receive()
            while (message := self._overheard.popleft() if self._overheard else wire.next()) is not MISSING:
                ledger = self._take(message)
                if ledger is not None and ledger.told:
                    todo[id(ledger)] = ledger
            heard = wire.pending
        self._tick(time.monotonic())
        while self._outgoing:
            data, expected = self._outgoing.popleft()
            self._expected.extend(expected)
            wire.send(data)
        return list(todo.values())

    def _take(self, message: Any) -> RedisCopy | None:
        if type(message) is Push:
            what = message[0]
            if what == b"smessage":
                ledger = self._channels.get(message[1])
                if ledger is not None and ledger.hinted(message[2]):
                    return ledger
                return None
            if what not in (b"ssubscribe", b"sunsubscribe"):
                return None
            if not self._expected or self._expected[0][0].encode() != what:
                ledger = self._channels.get(message[1])
                if ledger is not None and not self.link.moved(ledger):
                    raise Lost("the server has moved a session elsewhere")
                return None
        name, handler = self._expected.popleft()
        if type(message) is Refused and name in ("head", "role"):
            raise Lost(str(message))
        made: Any = handler(message)
        return made if made is not None and hasattr(made, "told") else None

    def refused(self, ledger: RedisCopy, reply: Refused) -> None:
        """What *ledger* misses was not told."""
        if reply.code in ("MOVED", "ASK"):
            ledger.asking = False
            if not self.link.moved(ledger):
                raise Lost(str(reply))
        elif reply.code == "ERR" and "Function not found" in str(reply):
            self.link.install(self)
            ledger.asking = True
            self.send(ledger.since_frame(heard=True), ("since", ledger.answered))
        elif reply.code in LATER:
            raise Lost(str(reply))
        else:
            ledger.spoil(refusal(reply, self))

    # ---- whether it is there ------------------------------------------------------------------------

    def _patience(self) -> float:
        """Seconds until something has to be looked at."""
        polled = self._polled
        until = self._due if polled is None else polled + self.silence
        return max(0.001, min(until - time.monotonic(), self.every))

    def _tick(self, now: float) -> None:
        """Ask for the newest revisions when it is time."""
        polled = self._polled
        if polled is None:
            if now >= self._due:
                self._poll(now)
        elif now >= polled + self.silence:
            raise Lost(f"silent for {self.silence:g} s")

    def _poll(self, now: float) -> None:
        self._polled = now
        self.polls += 1
        data = [frame(b"ROLE"), frame(b"PUBSUB", b"SHARDNUMSUB", *self._channels)]
        expected: list[tuple[str, Handler]] = [("role", self._role), ("audience", self._audience)]
        with self.guard:
            for ledger in self.ledgers.values():
                data.append(ledger.head_frame)
                expected.append(("head", ledger.head))
        expected[-1] = (expected[-1][0], _then(expected[-1][1], self._answered))
        self._outgoing.append((b"".join(data), tuple(expected)))

    def _role(self, reply: Any) -> None:
        if not isinstance(reply, list) or reply[0] != b"master":
            self.calls.drop()
            raise Lost("it is a replica now")

    def _audience(self, reply: Any) -> None:
        counts: dict[bytes, Any] = {} if type(reply) is Refused else pairs(reply)
        for channel, count in counts.items():
            if channel in self._channels:
                self._channels[channel].audience = count

    def _answered(self, reply: Any) -> None:
        polled, self._polled = self._polled, None
        assert polled is not None
        self.fresh = polled
        self._attempts = 0
        with self.guard:
            if not self.ledgers and polled - self._left > self.location.timing.linger:
                self.closed = True
        every = max(self.every, len(self.ledgers) / POLLS)
        self._due = polled + every * _chance.uniform(0.8, 1.2)  # so that not all come at once
        self.settle()

    def settle(self) -> None:
        """Be live, once there is contact and nothing is known to be missing."""
        if self._wire is None or self._polled is not None:
            return
        if not self.live and not any(ledger.asking for ledger in self.ledgers.values()):
            self.live = True
        if self.live:
            for ledger in list(self.ledgers.values()):
                if ledger.guarded and ledger.spoilt is None:
                    ledger.guard(None)

    def _look(self) -> None:
        """Let nobody read what is too old."""
        age, limit = self.age(), self.location.max_staleness
        if age <= limit:
            return
        raise errors.StaleRead(
            f"no contact with the server at {self.shown} for {age:.1f} s; this reader takes values that are "
            f"at most {limit:g} s old.",
            address=self.shown,
            age=age,
            max_staleness=limit,
        )


def _then(first: Handler, second: Handler) -> Handler:
    def both(reply: Any) -> object:
        made = first(reply)
        second(reply)
        return made

    return both


def _nothing(_: Any) -> None:
    pass

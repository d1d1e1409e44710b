"""What watchers are told, and who they are."""

from __future__ import annotations

import contextvars
import inspect
import itertools
import os
import threading
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import blinker

from dspex import deadlines, errors
from dspex.locks import ForkSafeLock
from dspex.records import Record

if TYPE_CHECKING:
    import asyncio

__all__ = [
    "EVERY_NAME",
    "LOSSLESS_QUEUE",
    "Change",
    "ChangeSignal",
    "Mode",
    "Watch",
    "connections",
    "fell_behind",
    "report",
    "running_loop",
    "skipped",
]

Mode = Literal["latest", "all"]
"""`latest`: a watcher that falls behind is told the newest change of a name. `all`: every change."""

EVERY_NAME = "*"
"""What to watch to be told of every variable of a session."""


LOSSLESS_QUEUE = 131_072
"""Changes that may wait for a watcher of mode `all` before it is closed."""


class Change(Record, frozen=True, gc=False):
    """
    One committed change of one variable: what a watcher is given.

    A change is also the record that it made, which is why `value` and `new` are the same.
    """

    old: Any = None
    """The value before, by the order of commits."""

    @property
    def new(self) -> Any:
        """The value since."""
        return self.value


class _Connections:
    """Counts every connect and disconnect of any `ChangeSignal`: caches of receivers know their age by it."""

    __slots__ = ("_numbers", "count")

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.count = 0

    def changed(self) -> int:
        """Count one more. No number comes twice, whichever thread is first to assign its own."""
        self.count = number = next(self._numbers)
        return number


connections = _Connections()


class ChangeSignal(blinker.Signal):
    """
    A blinker signal whose receivers are called in the order in which they were connected.

    blinker knows who listens, weakly or strongly as its users expect. dspex calls them itself, as
    `receiver(session, change=change)`: `Signal.send` inspects every receiver on every send and stops at the
    first that raises.
    """

    def __init__(self, doc: str | None = None) -> None:
        super().__init__(doc)
        self._serials: dict[Hashable, int] = {}

    def connect(self, receiver: Any, sender: Any = blinker.ANY, weak: bool = True) -> Any:
        """Call *receiver* as `receiver(session, change=change)` from now on."""
        if _is_async(receiver):
            raise errors.InvalidDeclaration(
                f"{receiver!r} is async and a signal does not await. Use session.watch(name, fn)."
            )
        super().connect(receiver, sender, weak)
        self._serials.setdefault(_identity(receiver), connections.changed())
        return receiver

    @contextmanager
    def muted(self) -> Iterator[None]:
        """A block in which nobody is called."""
        with super().muted():
            connections.changed()
            yield
        connections.changed()

    def receivers_for(self, sender: Any) -> Any:
        """Yield the receivers that are to be called for *sender*, in the order in which they connected."""
        yield from sorted(
            super().receivers_for(sender),
            key=lambda receiver: self._serials.get(_identity(receiver), connections.count),
        )

    def _disconnect(self, receiver_id: Hashable, sender_id: Hashable) -> None:
        super()._disconnect(receiver_id, sender_id)
        if receiver_id not in self.receivers:
            self._serials.pop(receiver_id, None)
        connections.changed()


def _is_async(function: Any) -> bool:
    """Whether *function*, or the `__call__` of its class, is an `async def`."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def running_loop(what: str) -> asyncio.AbstractEventLoop:
    """
    The event loop that runs here, which *what* needs.

    Raises:
        InvalidCall: There is none.
    """
    import asyncio

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise errors.InvalidCall(
            f"{what} needs a running event loop: call it in an async function."
        ) from None


def _identity(receiver: Any) -> Hashable:
    """What blinker keeps *receiver* under."""
    if inspect.ismethod(receiver):
        return id(receiver.__func__), id(receiver.__self__)
    return id(receiver)


class Watch:
    """
    One watcher of one session: what `Session.watch` returns. `close()` ends it.

    Kept alive by its session until then, even when the caller drops it.
    """

    def __init__(
        self,
        signal: ChangeSignal,
        name: str,
        callback: Callable[[Change], object],
        *,
        mode: Mode,
        opened: int,
        debounce: float | None = None,
    ) -> None:
        if mode not in get_args(Mode):
            raise errors.InvalidValue.expecting(
                f"one of {errors.listed(get_args(Mode))}", errors.shown(mode)
            ).at("mode")
        self.name = name
        self.opened: float = opened
        """The revision after which changes are told."""
        self.mode: Mode = mode
        self.callback = callback
        self.errors = 0
        """How many times the callback raised."""
        self.last_error: Exception | None = None
        self.closed = False
        self.overrun: Callable[[errors.LimitExceeded], None] = self._overrun
        """What is called when a watcher that wants every change cannot have them all."""
        self._signal = signal
        self.ended: Callable[[], object] | None = None
        """Called once when the watch is closed."""
        self.deliver: Callable[[Change], object] = callback
        """What the dispatcher calls."""
        if not callable(callback):
            raise errors.InvalidValue.expecting("a function", errors.shown(callback)).at("the watcher")
        if _is_async(callback):
            self.deliver = _OnLoop(self).push
        if debounce is not None:
            self.deliver = _Debounce(self, debounce, self.deliver).push
        signal.connect(self, weak=False)

    def __call__(self, session: object, *, change: Change) -> None:
        """The way blinker calls; for those who send the signal by hand."""
        self.deliver(change)

    def tell(self, change: Change) -> None:
        """Deliver *change*; the same as `deliver`, as a function of this watch alone."""
        self.deliver(change)

    def failed(self, error: Exception, change: Change) -> None:
        """Count and log an exception of the callback; it reaches nobody else."""
        self.errors += 1
        self.last_error = error
        report(self.callback, change, error)

    def _overrun(self, error: errors.LimitExceeded) -> None:
        self.last_error = error
        _log("watcher %r was closed: %s", self.callback, error, about={"dspex.variable": self.name})
        self.close()

    def close(self) -> None:
        """Stop watching. What is being delivered at this moment may still arrive."""
        if self.closed:
            return
        self.closed = True
        self._signal.disconnect(self)
        if self.ended is not None:
            self.ended()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self.closed else self.mode
        return f"<Watch {self.name!r} {state} {self.callback!r}>"


def fell_behind(name: str, limit: int) -> errors.LimitExceeded:
    """What a watcher of mode `all` is told that was too slow."""
    return errors.LimitExceeded(
        f"the watcher of '{name}' fell {limit} changes behind and was closed. Watch with mode='latest', or "
        "do the slow part elsewhere.",
        name=name,
        limit=limit,
    )


def skipped(name: str, rev: int) -> errors.LimitExceeded:
    """What a watcher of mode `all` is told whose store went on to *rev* over changes that it cannot tell."""
    return errors.LimitExceeded(
        f"changes of '{name}' before revision {rev} were missed while the store could not be reached and are "
        "no longer to be had: the watcher was closed. Watch again, or with mode='latest'.",
        name=name,
        rev=rev,
    )


def report(callback: object, change: Change, error: Exception) -> None:
    """Log that *callback* raised *error* when it was told of *change*."""
    about = {"dspex.variable": change.name, "dspex.revision": change.rev}
    sentence = "watcher %r failed on '%s' at revision %d"
    _log(sentence, callback, change.name, change.rev, about=about, error=error)


def _log(sentence: str, *values: object, about: dict[str, object], error: Exception | None = None) -> None:
    import logging

    logging.getLogger("dspex.watch").error(sentence, *values, exc_info=error, extra=about)


class _Debounce:
    """Calls once a burst is over, with the last change of each name that it had."""

    def __init__(self, watch: Watch, seconds: float, deliver: Callable[[Change], object]) -> None:
        deadlines.check_seconds(seconds, "debounce", least="more than 0")
        self._watch = watch
        self._deliver = deliver
        self._seconds = seconds
        self._lock = ForkSafeLock()
        self._last: dict[str, Change] = {}
        self._more = False
        self._waiting = 0
        """The process whose timer runs; 0 when none does."""

    def push(self, change: Change) -> None:
        with self._lock:
            self._last.pop(change.name, None)
            self._last[change.name] = change
            self._more = True
            if self._waiting != os.getpid():
                self._wait()

    def _wait(self) -> None:
        self._more = False
        timer = threading.Timer(self._seconds, self._quiet)
        timer.daemon = True
        timer.start()
        self._waiting = os.getpid()

    def _quiet(self) -> None:
        with self._lock:
            if self._more and not self._watch.closed:
                return self._wait()
            burst, self._last = self._last, {}
        for change in burst.values():
            if self._watch.closed:
                break
            try:
                self._deliver(change)
            except Exception as error:
                self._watch.failed(error, change)
            except BaseException as error:  # in a thread of its own: nobody else would hear of it
                self._watch.failed(RuntimeError(f"the callback raised {error!r}"), change)
        # Only now may another timer start: calls of one watch come one at a time.
        with self._lock:
            self._waiting = 0
            if self._last and not self._watch.closed:
                self._wait()
        return None


class _OnLoop:
    """
    Awaits an async callback on the loop on which the watch was opened, one change after another.

    What waits is bounded and, in mode `latest`, coalesced where it is pushed: a busy loop costs no memory.
    The callback runs in the context of the watch, not in that of whoever sets.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._loop = running_loop("an async watcher")
        self._context = contextvars.copy_context()
        self._lock = ForkSafeLock()
        self._waiting: deque[Change] = deque()
        self._running = False
        self._task: asyncio.Task[None] | None = None

    def push(self, change: Change) -> None:
        with self._lock:
            if self._watch.mode == "latest":
                self._waiting = deque(one for one in self._waiting if one.name != change.name)
            too_many = len(self._waiting) >= LOSSLESS_QUEUE
            if not too_many:
                self._waiting.append(change)
            start, self._running = not self._running, True
        if too_many:
            self._watch.overrun(fell_behind(self._watch.name, LOSSLESS_QUEUE))
        elif start:
            self._start()

    def _start(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._begin, context=self._context)
        except RuntimeError:  # the loop is closed: nobody will ever hear
            self._watch.close()

    def _begin(self) -> None:
        self._task = self._loop.create_task(self._run(), context=self._context)

    def _next(self) -> Change | None:
        with self._lock:
            if self._waiting and not self._watch.closed:
                return self._waiting.popleft()
            self._running = False
            return None

    async def _run(self) -> None:
        import asyncio

        while (change := self._next()) is not None:
            try:
                await self._watch.callback(change)  # type: ignore[misc]
            except Exception as error:
                self._watch.failed(error, change)
            except asyncio.CancelledError as error:
                # Somebody cancels all tasks, or what was awaited: the next change is told all the same.
                self._watch.failed(RuntimeError(f"the callback was cancelled: {error!r}"), change)
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    self._start()
                    raise

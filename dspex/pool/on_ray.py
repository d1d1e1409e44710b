"""
The pool on Ray: the same programs, calls and promises, on as many machines as the cluster has.

Each worker is a named actor, `dspex-<pool>-<slot>-<number>`. Ray brings one back that it lost, on another
machine if need be; whatever it kept was a cache. Workers reach sessions by the URL of their store, a server
of gRPC or Redis. A session of this process, and a fork, is shared on a socket of this machine, so workers on
other machines do not reach it, and say so.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any

from dspex import errors
from dspex.pool import programs
from dspex.pool.abandoning import pools
from dspex.pool.base import BasePool
from dspex.pool.calls import Call
from dspex.pool.channel import Say
from dspex.pool.failures import unpack_failure
from dspex.pool.members import Member, Slot, State
from dspex.pool.process import LIBRARIES
from dspex.pool.ray_worker import RayWorker

__all__ = ["RayPool"]

QUIET = {"include_dashboard": False, "log_to_driver": False, "logging_level": "error"}
"""How a Ray of our own is started."""


GROUPS = {"outbox": "outbox", **dict.fromkeys(("answer", "cancel", "more", "ping"), "control")}
"""Which methods of an actor run beside its calls."""


class Actor(Member):
    """One life of an actor."""

    def __init__(self, slot: Slot, pool: RayPool, handle: Any) -> None:
        super().__init__(slot)
        self.handle = handle
        self._pool = pool

    def _ask(
        self, method: str, then: Callable[[Any, BaseException | None], None] | None, *items: Any
    ) -> None:
        """Call *method* of the actor; *then* hears in the pool's thread what came of it."""
        pool = self._pool
        try:
            remote = getattr(self.handle, method)
            if method in GROUPS:
                remote = remote.options(concurrency_group=GROUPS[method])
            reference = remote.remote(*items)
        except Exception as error:  # Ray itself is gone
            if then is not None:
                pool.post(partial(then, None, error))
            return
        if then is None:
            return

        def done(future: Any) -> None:
            error = future.exception()
            pool.post(partial(then, None if error else future.result(), error))

        reference.future().add_done_callback(done)

    def begin(self, main: Any, names: list[str], environment: dict[str, str]) -> None:
        """Have it import the programs and make them ready."""

        def begun(answer: Any, error: BaseException | None) -> None:
            if error is not None:
                self.lost(error)
            elif answer[0] == Say.BROKEN:
                self.failure = unpack_failure(answer[1])
                self.kill(now=True)
            else:
                self._listen()
                self._pool._ready(self, answer[1])

        self._ask("begin", begun, self.name, main, names, environment)

    def _listen(self) -> None:
        def heard(messages: Any, error: BaseException | None) -> None:
            if error is not None:
                self.lost(error)
                return
            for message in messages:
                self._pool.heard(self, *message)
            if self.state is not State.GONE:
                self._listen()

        self._ask("outbox", heard)

    def lost(self, error: BaseException) -> None:
        """Ray says that it has ended, or cannot be reached."""
        if self.state is not State.GONE:
            first = str(error).strip().partition("\n")[0]
            self._pool._gone(
                self, f"was lost to Ray ({type(error).__name__}: {first})", exit_code=None, signal=None
            )
            if not self._pool._wanted(self.slot):
                self._pool.forget(self)

    # ---- the verbs of a member ---------------------------------------------------------------------

    def send(self, call: Call) -> None:
        def ended(answer: Any, error: BaseException | None) -> None:
            if error is not None:
                self.lost(error)
            elif answer is not None:
                self._pool.heard(self, *answer)

        # Machines have clocks of their own: what travels is what is left.
        left = call.deadline - time.monotonic()
        self._ask(
            "run",
            ended,
            call.number,
            call.program,
            call.inputs,
            call.reference,
            left,
            call.pin,
            call.window,
            call.carrier,
        )

    def cancel(self, call: Call) -> None:
        self._ask("cancel", None, call.number)

    def more(self, call: Call, pieces: int) -> None:
        self._ask("more", None, call.number, pieces)

    def answer(self, question: Any, *, value: bytes | None = None, failure: list[Any] | None = None) -> None:
        self._ask("answer", None, question, value, failure)

    def ping(self) -> None:
        def pong(_: Any, error: BaseException | None) -> None:
            if error is None:
                self.pings = 0
            else:
                self.lost(error)

        self._ask("ping", pong)

    def leave(self) -> None:
        self.kill(now=True)

    def kill(self, *, now: bool) -> None:
        self._pool.forget(self)
        self._pool.post(partial(self._pool._gone, self, "was ended", exit_code=None, signal=None))


class RayPool(BasePool):
    """
    Workers of a Ray cluster that run programs. Takes what `Pool` takes, and more.

    Args:
        programs: As for `Pool`; every machine of the cluster must be able to import them.
        address: Of the cluster, as `ray.init` takes it; without one the Ray that this process is connected
            to, or a new one on this machine.
        name: The first part of the actors' names; by default one that nobody else has.
        options: Of the actors, as `ray.remote` takes them: `{"num_cpus": 1, "resources": {"gpu-box": 1}}`.

    Make it before sessions of gRPC stores are opened: `ray.init` may hang in a process whose gRPC is in use.
    A program that sleeps or waits in C cannot be interrupted here: its worker is ended instead.
    """

    far = True

    def __init__(
        self,
        programs: Any,
        *,
        address: str | None = None,
        name: str | None = None,
        options: dict[str, Any] | None = None,
        **settings: Any,
    ) -> None:
        self.ray = _ray()
        super().__init__(programs, **{"spares": 0, "heartbeat": 5.0, **settings})
        self.name = name or f"{os.getpid()}-{os.urandom(3).hex()}"
        self._ours = not self.ray.is_initialized()
        if self._ours:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
            try:
                _reach(address, self.settings.start)
                self.ray.init(address=address or "local", **QUIET)
            except Exception as error:
                what = f"there is no Ray cluster at {address}" if address else "Ray cannot be started here"
                raise errors.WorkerLost(f"{what}: {error}", address=address, started=False) from error
        else:
            _check_same(address, self.ray.get_runtime_context().gcs_address)
        self._options = {"num_cpus": 1, **(options or {})}
        self._events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._handles: dict[Slot, Any] = {}
        """Actors that Ray brings back."""
        pools.add(self)
        self._thread.start()

    def post(self, event: Callable[[], None]) -> None:
        """Have the thread of the pool do *event*."""
        self._events.put(event)

    def forget(self, member: Actor) -> None:
        """End its actor, which does not come back."""
        if self._handles.get(member.slot) is member.handle:
            del self._handles[member.slot]
        self._end(member.handle)

    def _end(self, handle: Any) -> None:
        with suppress(Exception):  # Ray itself is gone
            self.ray.kill(handle, no_restart=True)

    # ---- what the scheduler asks -------------------------------------------------------------------

    def _launch(self, slot: Slot) -> Member:
        # One of which a start has failed is not brought back again.
        handle = self._handles.pop(slot, None)
        if handle is None:
            handle = (
                self.ray.remote(concurrency_groups={"control": 4, "outbox": 1})(RayWorker)
                .options(
                    name=f"dspex-{self.name}-{slot.name}-{slot.born}",
                    max_restarts=-1,
                    max_task_retries=0,
                    **self._options,
                )
                .remote()
            )
        self._handles[slot] = handle
        member = Actor(slot, self, handle)
        threads = str(self.settings.threads_each)
        environment = {**dict.fromkeys(LIBRARIES, threads), **self.settings.environment}
        member.begin(programs.main_script(), list(self.programs), environment)
        return member

    def _poke(self) -> None:
        self._events.put(None)

    def _wait(self, seconds: float) -> None:
        with suppress(Empty):
            event = self._events.get(timeout=seconds)
            while True:
                if event is not None:
                    event()
                event = self._events.get_nowait()

    def _release(self) -> None:
        for handle in self._handles.values():  # where no worker could start
            self._end(handle)
        self._lender.close()
        if self._ours:
            with suppress(self.ray.exceptions.RayError):
                self.ray.shutdown()


def _check_same(address: str | None, connected: str) -> None:
    if address not in (None, "auto", connected):
        raise errors.InvalidValue.expecting(
            f"'{connected}', the Ray that this process is connected to, or nothing", errors.shown(address)
        ).at("address")


def _reach(address: str | None, seconds: float) -> None:
    """Raise OSError if *address* names a host where nobody listens: Ray would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), seconds).close()


def _ray() -> Any:
    """The package, imported when there is a pool for it."""
    try:
        import ray
        import ray.exceptions
    except ImportError as error:
        raise errors.missing_extra("Pools on Ray", "ray") from error
    return ray

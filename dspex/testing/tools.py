"""What the contracts share: waiting for conditions, racing threads, and what a session is made of."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from dspex.session import Session
from dspex.stores import Store

__all__ = ["Opens", "now", "refused", "together", "until"]

DEADLINE = 30.0
"""Seconds after which what should come true is given up."""

T = TypeVar("T")


class Opens(Protocol):
    """Opens sessions that are closed at the end of the test."""

    def __call__(self, session_id: str = "contract", of: Store | None = None) -> Session:
        """A handle on that session, in the store of the test or in another."""
        ...


def until(condition: Callable[[], object], description: str) -> None:
    """Return when *condition* is true; fail with *description* when it does not become so."""
    end = time.monotonic() + DEADLINE
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < end, f"not within {DEADLINE:g} s: {description}"
        pause.wait(0.002)


def refused(error: type[Exception], call: Callable[[], object]) -> bool:
    """Whether *call* raises *error*."""
    try:
        call()
    except error:
        return True
    return False


def together(*calls: Callable[[], T]) -> list[T]:
    """What *calls* return that are made at the same moment, each in a thread of its own."""
    barrier = threading.Barrier(len(calls))
    results: dict[int, T] = {}
    raised: list[BaseException] = []

    def work(index: int, call: Callable[[], T]) -> None:
        try:
            barrier.wait(DEADLINE)
            results[index] = call()
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=work, args=pair, daemon=True) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 2 * DEADLINE
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    assert not any(thread.is_alive() for thread in threads), "threads hang"
    if raised:
        raise raised[0]
    return [results[index] for index in range(len(calls))]


def now(session: Session) -> tuple[Any, ...]:
    """All that a refusal must leave, and a durable store must give back: values, history, labels, names."""
    return (
        session.revision,
        {
            name: (one.value, one.version, one.rev, one.epoch, one.source, one.metadata, one.time)
            for name, one in session.snapshot().records.items()
        },
        list(session.history()),
        {label: (at, dict(session.snapshot(label))) for label, at in session.tags.items()},
        dict(session.variables),
    )

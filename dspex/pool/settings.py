"""What can be set on a pool; the same for every engine."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import attrs

from dspex import deadlines, errors

__all__ = ["AFFINITIES", "Settings", "check_count", "cores"]

AFFINITIES = ("strict", "hint", "none")


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_count(value: Any, what: str, least: int) -> None:
    """
    Refuse *value*, called *what*, unless it is an integer from *least* on.

    Raises:
        InvalidValue: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise errors.InvalidValue.expecting(f"an integer from {least}", errors.shown(value, 60)).at(what)


def _count(least: int) -> Any:
    return lambda _self, field, value: check_count(value, field.name, least)


def _seconds(_self: object, field: Any, value: Any) -> None:
    deadlines.check_seconds(value, field.name, least="more than 0")


def _bytes(_self: object, field: Any, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise errors.InvalidValue.expecting("more than 0", errors.shown(value, 60)).at(field.name)


def _variables(_self: object, _field: object, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise errors.InvalidValue.expecting("a mapping of names to texts", errors.shown(value, 60)).at(
            "environment"
        )
    for name, text in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise errors.InvalidValue.expecting(
                "named by text without '=' and NUL", errors.shown(name, 60)
            ).at("environment")
        if not isinstance(text, str) or "\0" in text:
            raise errors.InvalidValue.expecting("text without NUL", errors.shown(text, 60)).at(
                f"environment[{errors.shown(name, 60)}]"
            )


def _affinity(_self: object, _field: object, value: Any) -> None:
    if value not in AFFINITIES:
        raise errors.InvalidValue.expecting(
            f"one of {errors.listed(AFFINITIES)}{errors.did_you_mean(value, AFFINITIES)}",
            errors.shown(value, 60),
        ).at("affinity")


@attrs.frozen(kw_only=True)
class Settings:
    """How a pool behaves. Times are in seconds."""

    workers: int = attrs.field(default=2, validator=_count(1))
    """Processes that run calls, one call at a time each."""

    spares: int = attrs.field(default=1, validator=_count(0))
    """Processes that are ready to step in for one that was lost."""

    affinity: str = attrs.field(default="strict", validator=_affinity)
    """
    Whether the calls of a session go to one worker: `strict`, always; `hint`, if it is free; `none`.
    """

    queue: int = attrs.field(default=100, validator=_count(0))
    """Calls that may wait; more are refused with `PoolSaturated`."""

    timeout: float = attrs.field(default=600.0, validator=_seconds)
    """What a call may take that has no deadline of its own, in the queue and in the worker."""

    start: float = attrs.field(default=30.0, validator=_seconds)
    """What a worker may take until it is ready."""

    patience: float = attrs.field(default=0.5, validator=_seconds)
    """What a program may take to end after it was cancelled, before its worker is ended."""

    grace: float = attrs.field(default=2.0, validator=_seconds)
    """What a worker may take to end after SIGTERM, before SIGKILL."""

    heartbeat: float = attrs.field(default=2.0, validator=_seconds)
    """Between two heartbeats."""

    misses: int = attrs.field(default=3, validator=_count(1))
    """Heartbeats that a worker may miss."""

    restarts: int = attrs.field(default=5, validator=_count(1))
    """Starts that may fail within *window*, before a slot is given up."""

    window: float = attrs.field(default=30.0, validator=_seconds)
    """Seconds within which failed starts of a slot are counted together."""

    recycle_calls: int = attrs.field(default=1_000, validator=_count(1))
    """Calls after which a worker is replaced; 10 % more or less, so that not all are at once."""

    recycle_bytes: float = attrs.field(default=float("inf"), validator=_bytes)
    """Memory above which a worker is replaced before it gets another call."""

    attempts: int = attrs.field(default=5, validator=_count(1))
    """How often an idempotent call is begun at most."""

    pieces: int = attrs.field(default=32, validator=_count(1))
    """Pieces of a stream that may be on their way."""

    tools: int = attrs.field(default=8, validator=_count(1))
    """Tools that run at the same time, for all programs together."""

    threads: int | None = attrs.field(default=None, validator=attrs.validators.optional(_count(1)))
    """Threads of a worker's numeric libraries and local LM; by default cores / workers, at least 1."""

    environment: dict[str, str] = attrs.field(factory=dict, validator=_variables)
    """Variables of the workers' environment, beside those of this process."""

    @property
    def threads_each(self) -> int:
        """The threads that each worker is to compute with."""
        return self.threads or max(1, cores() // self.workers)

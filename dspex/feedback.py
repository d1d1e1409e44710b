"""What production says of runs, and runs with values that only they see."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakValueDictionary

import attrs
import msgspec

from dspex import errors
from dspex.records import Snapshot

if TYPE_CHECKING:
    from dspex.kinds import Kind
    from dspex.pool.base import BasePool
    from dspex.runs import Run
    from dspex.session import Session

__all__ = ["Feedback", "Tried", "bound_in", "check_tellable", "finite", "labels", "overlaid", "run_on"]

SHOWN = 60
"""The most characters of a value that the history tells: prompts are long, and metadata is bounded."""


class Feedback:
    """Who wants to hear of the scores of a session's runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: tuple[Callable[[Run, float], object], ...] = ()
        self._rollouts: dict[str, Any] = {}

    @classmethod
    def of(cls, session: Session) -> Feedback:
        """The one of *session*."""
        return cast("Feedback", session.attachment(cls, cls))

    def listen(self, fn: Callable[[Run, float], object]) -> Callable[[], None]:
        """Call `fn(run, score)` from now on, until the returned function is called."""
        with self._lock:
            self._listeners = (*self._listeners, fn)

        def leave() -> None:
            with self._lock:
                self._listeners = tuple(one for one in self._listeners if one is not fn)

        return leave

    def enter(self, name: str, rollout: Any) -> Any:
        """The rollout of the variable *name*: the one that is there, or else *rollout* from now on."""
        with self._lock:
            return self._rollouts.setdefault(name, rollout)

    def leave(self, name: str, rollout: Any) -> None:
        """*rollout* has ended."""
        with self._lock:
            if self._rollouts.get(name) is rollout:
                del self._rollouts[name]

    def give(self, session: Session, run: Run, score: float) -> int:
        """See `Session.feedback`."""
        if not isinstance(getattr(run, "session", None), str):
            raise errors.InvalidValue.expecting(
                "a Run, as record(…) and the run(…) of a rollout or bandit return it", errors.shown(run, 80)
            ).at("run", session.id)
        if run.session != session.id:
            raise errors.InvalidValue.expecting(
                f"a run of session '{session.id}'", f"one of session '{run.session}'"
            ).at("run", session.id)
        checked = finite(score)
        for fn in self._listeners:
            fn(run, checked)
        return len(self._listeners)


def check_tellable(session: Session, name: str) -> None:
    """Refuse a secret: which values were tried is written into the history."""
    declared = session.variables.get(name)
    if declared is not None and declared.kind.secret:
        raise errors.InvalidValue.expecting(
            "a variable whose values may be told in the history", "a secret"
        ).at(name, session.id)


def labels(kind: Kind[Any], values: Iterable[Any]) -> list[str]:
    """A short name for each of *values*, no two alike."""
    made: list[str] = []
    for value in values:
        shown = value if isinstance(value, str) and value.isprintable() else kind.show(value)
        label = short = shown if len(shown) <= SHOWN else f"{shown[: SHOWN - 1]}…"
        number = 1
        while label in made:
            number += 1
            label = f"{short} ({number})"
        made.append(label)
    return made


def finite(score: Any) -> float:
    """*score* as a finite number, or `InvalidValue`."""
    if isinstance(score, bool | int | float) and math.isfinite(score):
        return float(score)
    raise errors.InvalidValue.expecting("a finite number", errors.shown(score)).at("score")


class Tried:
    """Runs that were made with a choice, and which it was, for as long as somebody holds them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: WeakValueDictionary[int, Run] = WeakValueDictionary()
        self._choices: dict[int, Any] = {}

    def add(self, run: Run, choice: Any) -> None:
        """Remember *choice*."""
        with self._lock:
            self._runs[id(run)] = run
            self._choices[id(run)] = choice
            if len(self._choices) > 2 * len(self._runs) + 16:
                self._choices = {key: one for key, one in self._choices.items() if key in self._runs}

    def __contains__(self, run: Run) -> bool:
        """Whether `take` would give the choice of *run*."""
        return self._runs.get(id(run)) is run

    def take(self, run: Run) -> Any:
        """The choice of *run*, once; None if it was made otherwise, or scored before."""
        with self._lock:
            if self._runs.get(id(run)) is not run:
                return None
            del self._runs[id(run)]
            return self._choices.pop(id(run), None)


def overlaid(snapshot: Snapshot, values: Mapping[str, Any]) -> Snapshot:
    """*snapshot* with other *values*, which nobody else sees."""
    records = dict(snapshot._records)
    for name, value in values.items():
        records[name] = msgspec.structs.replace(records[name], value=value)
    return attrs.evolve(snapshot, records=records)


def bound_in(session: Session, program: Any) -> Any:
    """*program*, bound to *session* once for all runs."""
    return session.attachment(program, lambda: program.bind(session))


def run_on(
    program: Any,
    session: Session,
    snapshot: Snapshot,
    inputs: tuple[Any, ...],
    named: Mapping[str, Any],
    *,
    timeout: float | None = None,
    pool: BasePool | None = None,
) -> Run:
    """Run *program* with the values of *snapshot*, here or in a worker of *pool*."""
    live = bound_in(session, program)
    run: Run
    if pool is not None:
        run = live._record_in(pool, snapshot, inputs, named, timeout=timeout)
        return run
    run = live.pinned(snapshot).record(*inputs, timeout=timeout, **named)
    return run

"""Choosing while it runs, from what production says."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import attrs

from dspex import errors
from dspex.feedback import Feedback, Tried, bound_in, check_tellable, overlaid, run_on
from dspex.feedback import labels as shown_as
from dspex.kinds import Boolean, Choice, ModuleChoice

if TYPE_CHECKING:
    from dspex.commits import Receipt
    from dspex.pool.base import BasePool
    from dspex.records import Snapshot
    from dspex.runs import Run
    from dspex.session import Session

__all__ = ["Arm", "Bandit"]

TOLD = 40
"""Of how many choices, the best, the metadata of a promotion tells."""


@attrs.define
class Arm:
    """One of the choices, and what is known of it."""

    label: str
    value: Any
    """Of the variable; None for a labelled revision."""
    good: float = 1.0
    """One more than the scores together: with `bad` the Beta distribution of how good it may be."""
    bad: float = 1.0

    @property
    def count(self) -> int:
        """Scores so far."""
        return round(self.good + self.bad - 2)

    @property
    def mean(self) -> float:
        """The mean that is expected of it; 0.5 where nothing is known."""
        return self.good / (self.good + self.bad)


class Bandit:
    """
    Choose for each run among the declared values of a variable, or among labelled revisions (Thompson
    sampling).

    `run` makes a run with the choice of that moment, pinned; `session.feedback(run, score)`, with scores from
    0 to 1, teaches. A choice is as likely as it is, by what is known, the best one. The session's own values
    stay as they are until `promote`.

    Args:
        session: Whose runs.
        name: A variable with declared choices.
        values: Some of its choices; by default all.
        labels: Instead of a variable: tags of the session, each a whole set of values.
        seed: The same one makes the same choices of the same scores.

    Raises:
        RuleBroken: A rule is against one of the values, with the others as they are now.
    """

    def __init__(
        self,
        session: Session,
        name: str | None = None,
        *,
        values: Iterable[Any] | None = None,
        labels: Iterable[str] | None = None,
        seed: int | None = None,
    ) -> None:
        if (name is None) == (labels is None):
            raise errors.InvalidCall("Bandit() takes the name of a variable, or labels=, and not both.")
        self.session = session
        self.name = name
        self.arms = _labelled(session, labels) if name is None else _valued(session, name, values)
        if len(self.arms) < 2:
            raise errors.InvalidValue.expecting("two choices or more", str(len(self.arms))).at("the bandit's")
        if name is not None:
            for arm in self.arms:
                session.fork({name: arm.value}).close()  # a rule may be against it
        self._dice = random.Random(seed)  # noqa: S311  chances, not keys
        self._lock = threading.Lock()
        self._tried = Tried()
        self._closed = False
        self._leave = Feedback.of(session).listen(self._hear)

    def choose(self) -> Arm:
        """The choice for the next run."""
        with self._lock:
            return max(self.arms, key=lambda arm: self._dice.betavariate(arm.good, arm.bad))

    @property
    def best(self) -> Arm:
        """The choice of which most is expected."""
        return max(self.arms, key=lambda arm: arm.mean)

    def run(
        self,
        program: Any,
        *inputs: Any,
        timeout: float | None = None,
        pool: BasePool | None = None,
        **named: Any,
    ) -> Run:
        """
        Run *program* with a choice, and return the `Run` to give feedback on.

        Args:
            program: A `Program` class, or a bound program.
            timeout: Seconds after which `DeadlineExceeded` is raised.
            pool: Let a worker of this pool do it.

        Raises:
            InvalidCall: The bandit was closed.
        """
        if self._closed:
            raise errors.InvalidCall(
                f"the bandit on '{self.name or 'labels'}' in session '{self.session.id}' was closed and "
                "gives no more runs: promote() its best, or make another.",
                session=self.session.id,
                name=self.name,
            )
        bound_in(self.session, program)  # declares what the snapshot is to have
        arm = self.choose()
        snapshot = self._snapshot(arm)
        run = run_on(program, self.session, snapshot, inputs, named, timeout=timeout, pool=pool)
        self._tried.add(run, arm)
        return run

    def _snapshot(self, arm: Arm) -> Snapshot:
        if self.name is None:
            return self.session.snapshot(arm.label)
        return overlaid(self.session.snapshot(), {self.name: arm.value})

    def _hear(self, run: Run, score: float) -> None:
        if run not in self._tried:
            return
        if not 0.0 <= score <= 1.0:
            raise errors.InvalidValue.expecting("from 0 to 1", errors.shown(score)).at("score")
        arm: Arm | None = self._tried.take(run)
        if arm is None:  # another thread has scored it just now
            return
        with self._lock:
            arm.good += score
            arm.bad += 1.0 - score

    def promote(self) -> Receipt:
        """Set the session to the best choice, with what is known of each in the metadata."""
        best = self.best
        told = sorted(self.arms, key=lambda arm: -arm.mean)[:TOLD]
        known = {"bandit": {arm.label: {"n": arm.count, "mean": arm.mean} for arm in told}}
        if self.name is not None:
            return self.session.update({self.name: best.value}, known, source="bandit")
        then = self.session.snapshot(best.label)
        values = {name: then[name] for name in then if self.session.get(name) is not then[name]}
        return self.session.update(values, known, source="bandit")

    def close(self) -> None:
        """End it: no more runs, and no more learning. The best so far can still be promoted."""
        self._closed = True
        self._leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        arms = ", ".join(f"{arm.label} {arm.mean:.2f} of {arm.count}" for arm in self.arms)
        return f"<Bandit on '{self.name or 'labels'}': {arms}>"


def _valued(session: Session, name: str, values: Iterable[Any] | None) -> list[Arm]:
    check_tellable(session, name)
    kind = session.variables[name].kind if name in session.variables else None
    if kind is None:
        session.get(name)  # says which is near
    assert kind is not None
    if values is not None:
        taken = [session.check(name, value) for value in values]
    elif isinstance(kind, Boolean):
        taken = [False, True]
    elif isinstance(kind, Choice | ModuleChoice):
        taken = list(kind.choices)
    else:
        raise errors.InvalidValue.expecting("given for a variable without declared choices", "None").at(
            "values"
        )
    return [Arm(label, value) for label, value in zip(shown_as(kind, taken), taken, strict=True)]


def _labelled(session: Session, labels: Iterable[str] | None) -> list[Arm]:
    arms = []
    for label in dict.fromkeys(labels or ()):
        session.snapshot(label)  # says which is near
        arms.append(Arm(label, None))
    return arms

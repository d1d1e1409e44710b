"""One trial: a fork of the session, the program on it, and what it scored."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs

from dspex import errors
from dspex.evaluation.evaluate import Evaluating
from dspex.optimizers.studies import State, Trial

if TYPE_CHECKING:
    from dspex.claims import Claim
    from dspex.evaluation.evaluate import Pool
    from dspex.evaluation.metrics import Metric
    from dspex.evaluation.results import Scored
    from dspex.session import Session
    from dspex.spaces import SearchSpace

__all__ = ["TTL", "Budget", "BudgetSpent", "Outcome", "Trials", "kept", "nothing_to_tune", "stages"]

TTL = 30.0
"""Seconds after which the claim of a study that was killed ends."""


class BudgetSpent(Exception):
    """There is no time, or no LM call, left for another example."""


@attrs.define
class Budget:
    """What a search may take; None for any amount."""

    seconds: float | None
    lm_calls: int | None
    began: float = attrs.field(factory=time.monotonic)
    spent_calls: int = 0
    counted: bool = True
    """Whether `spent_calls` are all; what a pool asks of models nobody counts."""
    stopped: bool = False
    _lock: threading.Lock = attrs.field(factory=threading.Lock, repr=False)

    def spend(self, calls: int | None) -> None:
        """Count what an example took; None where that is not known."""
        with self._lock:
            self.counted = self.counted and calls is not None
            self.spent_calls += calls or 0

    @property
    def over(self) -> bool:
        """Whether nothing is left."""
        return (
            self.stopped
            or (self.seconds is not None and time.monotonic() - self.began >= self.seconds)
            or (self.lm_calls is not None and self.spent_calls >= self.lm_calls)
        )

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self.began


@contextmanager
def kept(claim: Claim, budget: Budget) -> Iterator[None]:
    """
    Keep *claim* from ending while the block runs, however long a step of it takes.

    Raises:
        Claimed: It had ended, and somebody else has claimed a name since; the search was ended then.
    """
    over = threading.Event()
    lost: list[errors.DspexError] = []

    def renew() -> None:
        while not over.wait(TTL / 3):
            try:
                claim.renew()
            except errors.StoreUnavailable:
                continue  # there are two more times
            except errors.DspexError as error:
                lost.append(error)
                budget.stopped = True
                return

    thread = threading.Thread(target=renew, name="dspex-claim", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    if lost:
        raise lost[0]


@attrs.frozen
class Outcome:
    """A trial that was run, to its end or not."""

    state: State
    evaluating: Evaluating
    items: Sequence[Scored]

    def trial(self, number: int, point: Mapping[str, Any], space: SearchSpace) -> Trial:
        """The same as data."""
        found = self.evaluating.result(self.items)
        count = len(found.items)

        def mean(total: float | None) -> float | None:
            return None if total is None else total / count

        return Trial(
            number,
            point,
            shown=space.encode(point),
            state=self.state,
            score=found.score,
            interval=found.interval,
            items=count,
            failures=found.failures,
            seconds=found.seconds_per_item,
            cost=mean(found.cost),
            lm_calls=mean(found.lm_calls),
            tokens=mean(found.tokens),
            error=next((item.error for item in found.items if item.error is not None), None),
        )


def stages(count: int, first: int | None) -> list[int]:
    """After how many of *count* examples to look again whether a trial is worth more: doubling."""
    sizes = []
    size = first or count
    while size < count:
        sizes.append(size)
        size *= 2
    return [*sizes, count]


@attrs.frozen
class Trials:
    """What all trials of a search share."""

    program: Any
    session: Session
    space: SearchSpace
    examples: Sequence[Any]
    metric: Metric
    budget: Budget
    screen: int | None = None
    num_threads: int = 1
    deadline: float | None = None
    pool: Pool | None = None

    def run(
        self,
        point: Mapping[str, Any],
        give_up: Callable[[Sequence[Scored]], bool] | None = None,
        begun: Outcome | None = None,
    ) -> Outcome:
        """
        Score *point* on a fork of its own.

        Args:
            point: Values by name.
            give_up: Asked after each stage of the screening with the items so far.
            begun: The same trial, given up before: it goes on where it was.

        Raises:
            BudgetSpent: In the middle.
            MetricFailed: The metric did.
        """
        if begun is None:
            evaluating = Evaluating(
                self.program,
                self.metric,
                self.session.fork(point),
                num_threads=self.num_threads,
                deadline=self.deadline,
                pool=self.pool,
            )
            items: list[Scored] = []
        else:
            evaluating, items = begun.evaluating, list(begun.items)
        for size in stages(len(self.examples), self.screen if give_up is not None else None):
            for item in evaluating.scored(self.examples[len(items) : size], len(items)):
                items.append(item)
                self.budget.spend(item.lm_calls)
                if self.budget.over and len(items) < len(self.examples):
                    raise BudgetSpent
            if size < len(self.examples) and give_up is not None and give_up(items):
                return Outcome("screened", evaluating, items)
        return Outcome("complete", evaluating, items)


def nothing_to_tune(space: SearchSpace) -> errors.InvalidDeclaration:
    """*space* has no dimension."""
    reasons = "; ".join(f"{name}: {why}" for name, why in space.left_out.items())
    return errors.InvalidDeclaration(
        f"{space.program} has nothing to tune. {reasons or 'It declares no variable'}.",
        program=space.program,
    )

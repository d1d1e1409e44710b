"""What an optimizer gives back: its trials, the best one, and how to take it back."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from dspex import errors

if TYPE_CHECKING:
    import os

    from dspex.commits import Receipt
    from dspex.program import Program
    from dspex.session import Session
    from dspex.spaces import SearchSpace

__all__ = ["MINIMIZED", "OBJECTIVES", "Choose", "State", "Study", "Trial", "best_in"]

State: TypeAlias = Literal["complete", "screened", "refused", "failed", "running"]

OBJECTIVES = ("score", "seconds", "cost", "lm_calls", "tokens")
"""What a study can look for; all but the score are means per example, and the less the better."""

MINIMIZED = frozenset(OBJECTIVES) - {"score"}


@attrs.frozen
class Trial:
    """One point that was tried."""

    number: int
    point: Mapping[str, Any]
    """Values by name, as their kinds store them."""
    shown: Mapping[str, Any]
    """The same in scalars, as reports show them."""
    state: State
    """`screened`: worse than the best on a small sample, and not looked at further; `refused`: by a rule."""
    score: float | None = None
    interval: tuple[float, float] | None = None
    items: int = 0
    """Examples that it was scored on."""
    failures: int = 0
    """Those of them for which the program raised."""
    seconds: float | None = None
    """For each example, in the mean; the same for the next three."""
    cost: float | None = None
    lm_calls: float | None = None
    tokens: float | None = None
    error: str | None = None
    """Why it failed or was refused."""
    baseline: bool = False
    """Whether it tried what the session had before."""

    def objectives(self, names: Sequence[str]) -> tuple[float, ...]:
        """
        The numbers of *names*.

        Raises:
            InvalidValue: The models do not say one of them.
        """
        values = [getattr(self, name) for name in names]
        for name, value in zip(names, values, strict=True):
            if value is None:
                raise errors.InvalidValue.expecting(
                    "an objective that the language model reports", "nothing"
                ).at(name)
        return tuple(values)


Choose: TypeAlias = Callable[[Sequence[Trial]], Trial]
"""A rule that picks one of several trials of which none is better than another in everything."""


@attrs.define(eq=False)
class Study:
    """
    A finished search on a session.

    `print(study)` says what it found. `report()` writes it down as a page, `plot()` draws it, `rollback()`
    undoes what it committed.
    """

    name: str
    program: type[Program]
    session: Session
    space: SearchSpace
    objectives: tuple[str, ...]
    trials: tuple[Trial, ...]
    """All of them, also those of earlier runs of the same study; a point that was proposed again is one."""
    best: Trial | None
    """The one that was picked; None when none is complete."""
    seconds: float
    """How long this run of the study took."""
    lm_calls: int | None
    """Calls of language models in this run; None where they were made in a pool, and not counted."""
    storage: str | None = None
    """Where the trials are; None for memory."""
    notes: tuple[str, ...] = ()
    """What should be known beside: old trials that could not be kept, found texts that no variable holds."""
    receipt: Receipt | None = None
    """The winning commit; None when nothing was better, or nothing was to be committed."""
    optuna: Any = None
    """The `optuna.Study` behind it."""

    @property
    def baseline(self) -> Trial | None:
        """The trial of the values that the session had before."""
        return baseline_of(self.trials)

    @property
    def pareto(self) -> tuple[Trial, ...]:
        """The complete trials of which none is better than another in every objective."""
        return pareto(self.trials, self.objectives)

    def rollback(self) -> Receipt:
        """
        Set what the winning commit has set back to what it was before, in one commit.

        Raises:
            UnknownRevision: The study has committed nothing.
        """
        if self.receipt is None:
            raise errors.UnknownRevision(f"study '{self.name}' has committed nothing.", study=self.name)
        before = {change.name: change.old for change in self.receipt.changes}
        return self.session.update(before, {"rollback": self.name})

    def plot(self, kind: str = "history") -> Any:
        """
        A plotly figure: `history`, `parallel`, `importances`, `pareto`, `slice` or `timeline`, drawn by
        Optuna.

        Raises:
            InvalidValue: There is no such plot, or the study has too little to draw.
        """
        from dspex.optimizers import plots

        return plots.plot(self, kind)

    def report(self, path: str | os.PathLike[str] | None = None) -> Path:
        """Write the study as one HTML file that needs nothing else, and return where it is."""
        from dspex.optimizers import reports

        target = Path(path) if path is not None else Path(f"{self.name}.html")
        target.write_text(reports.html(self), encoding="utf-8")
        return target

    def __str__(self) -> str:
        lines = [f"{self.name}: {counted(self.trials)}, {self.seconds:.1f} s"]
        for label, one in (("baseline", self.baseline), ("best", self.best)):
            if one is not None and one.score is not None:
                beside = [f", {getattr(one, name):.4g} {name}" for name in self.objectives if name != "score"]
                values = ", ".join(f"{key}={value}" for key, value in one.shown.items())
                lines.append(f"  {label} {one.score:.3f}{''.join(beside)} on {one.items}: {values}")
        return "\n".join(lines)


def scored(trials: Sequence[Trial]) -> int:
    """How many of *trials* were scored: what the budget of a search counts."""
    return sum(one.state in ("complete", "screened") for one in trials)


def counted(trials: Sequence[Trial]) -> str:
    """*trials* in numbers, for a sentence."""
    states = [one.state for one in trials]
    parts = [f"{scored(trials)} trials, {states.count('complete')} complete"]
    parts += [f"{states.count(state)} {state}" for state in ("refused", "failed") if state in states]
    return ", ".join(parts)


def new_name(program: type[Program]) -> str:
    """The name of a study of *program* that was given none; no other has it."""
    return f"{program.__name__}-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def baseline_of(trials: Sequence[Trial]) -> Trial | None:
    """The trial of what was there before; of several the one that more is known of."""
    return max((one for one in trials if one.baseline), key=lambda one: one.items, default=None)


def best_in(trials: Sequence[Trial], objective: str) -> Trial:
    """The one of *trials* that is best in that one objective."""
    best = min if objective in MINIMIZED else max
    return best(trials, key=lambda one: one.objectives((objective,)))


def surely_better(one: Trial, baseline: Trial) -> bool:
    """Whether *one* scored more than *baseline*, which was looked at only a little, may score at all."""
    if one.score is None or baseline.interval is None:
        return False
    return one.score > baseline.interval[1]


def pareto(trials: Sequence[Trial], objectives: Sequence[str]) -> tuple[Trial, ...]:
    """See `Study.pareto`."""
    done = [one for one in trials if one.state == "complete"]

    def worth(one: Trial) -> list[float]:
        numbers = one.objectives(objectives)
        return [-v if name in MINIMIZED else v for name, v in zip(objectives, numbers, strict=True)]

    worths = [worth(one) for one in done]
    return tuple(
        one
        for one, mine in zip(done, worths, strict=True)
        if not any(
            other != mine and all(a >= b for a, b in zip(other, mine, strict=True)) for other in worths
        )
    )

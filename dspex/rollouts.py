"""
Giving a share of the runs another value, and deciding by their scores.

Which value a run gets depends on its key alone, so that a user always meets the same one, in every process.
Scores are compared at a few sample sizes fixed beforehand, with Welch's test, two-sided; the error that is
allowed is divided by the number of looks and of candidates (Bonferroni), because looking again and again
would find a difference where there is none.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import attrs

from dspex import errors
from dspex.feedback import Feedback, Tried, check_tellable, finite, overlaid

if TYPE_CHECKING:
    from typing import Self

    from dspex.runs import Run
    from dspex.session import Session

__all__ = ["Guard", "Rollout", "State"]

State: TypeAlias = Literal["running", "promoted", "rolled back", "inconclusive", "closed", "overtaken"]

LEAST = 20
"""The fewest scores of each value with which the test means anything."""


@attrs.frozen
class Guard:
    """The rule by which a rollout ends."""

    min_sample: int = attrs.field(default=50, validator=attrs.validators.ge(LEAST))
    """Scores that both values need before the first look; the next looks are at twice as many, and so on."""
    alpha: float = attrs.field(default=0.05, validator=[attrs.validators.gt(0.0), attrs.validators.lt(1.0)])
    """How likely, at most, a value is promoted or rolled back although both are equally good."""
    looks: int = attrs.field(default=4, validator=attrs.validators.ge(1))
    """How often to look; after the last one a rollout is inconclusive, and what was there before stays."""

    def p(self, candidate: Sample, baseline: Sample) -> float:
        """How likely means so different are, if the two are equally good (Welch, normal approximation)."""
        spread = math.sqrt(candidate.variance / candidate.count + baseline.variance / baseline.count)
        difference = candidate.mean - baseline.mean
        if spread == 0.0:
            return 1.0 if difference == 0.0 else 0.0
        return math.erfc(abs(difference) / spread / math.sqrt(2.0))

    def due(self, look: int) -> int:
        """Scores that the look of that number, from 0, needs of both."""
        return self.min_sample << look


@attrs.define
class Sample:
    """The scores of one value."""

    count: int = 0
    mean: float = 0.0
    _squares: float = 0.0

    def add(self, score: float) -> None:
        """One more (Welford)."""
        self.count += 1
        before = self.mean
        self.mean += (score - before) / self.count
        self._squares += (score - before) * (score - self.mean)

    @property
    def variance(self) -> float:
        """Of the scores, as a sample's."""
        return self._squares / (self.count - 1) if self.count > 1 else 0.0


class Rollout:
    """
    What `Session.rollout` returns: runs get a share of the values each, until one is promoted or all are
    given up.

    The session's own value stays as it is meanwhile; only runs made through `run` get another. When somebody
    else sets the variable to another value, the rollout is over: `overtaken`, and what they have set stays.
    """

    def __init__(
        self,
        session: Session,
        name: str,
        shares: Mapping[Any, float],
        key: str | Callable[[Mapping[str, Any]], Any] | None,
        guard: Guard,
    ) -> None:
        self.session = session
        self.name = name
        self.guard = guard
        self.state: State = "running"
        self._key = key
        self._lock = threading.Lock()
        self._tried = Tried()
        self._look = 0
        check_tellable(session, name)
        self.shares = {session.check(name, value): share for value, share in shares.items()}
        """What part of the runs gets each value."""
        self.baseline = session.get(name)
        """The value that was there before."""
        self._check()
        self.samples = {value: Sample() for value in self.shares}
        """The scores so far, by value."""
        for value in self.shares:
            if value != self.baseline:
                session.fork({name: value}).close()  # a rule may be against it
        self._note("started", {"shares": {str(value): share for value, share in self.shares.items()}})
        self._leave = Feedback.of(session).listen(self._hear)

    def _check(self) -> None:
        shares = self.shares.values()
        if len(self.shares) < 2 or not all(0 < one < 1 for one in shares) or not math.isclose(sum(shares), 1):
            raise errors.InvalidValue.expecting(
                "two or more values whose shares, each above 0, make 1", errors.shown(dict(self.shares))
            ).at("shares", self.session.id)
        if self.baseline not in self.shares:
            raise errors.InvalidValue.expecting(
                f"values with the present one, {errors.shown(self.baseline, 60)}, among them",
                errors.listed(self.shares),
            ).at("shares", self.session.id)

    def choose(self, key: Any) -> Any:
        """The value for *key*: always the same one while the rollout runs; then what was decided."""
        import hashlib

        if self.state != "running" or self._overtaken():
            return self.session.get(self.name)
        salted = f"{self.session.id}:{self.name}:{key}".encode()
        at = int.from_bytes(hashlib.sha256(salted).digest()[:8], "big") / 2**64
        for value, share in self.shares.items():
            at -= share
            if at < 0:
                return value
        return self.baseline

    def run(self, program: Any, *inputs: Any, key: Any = None, **named: Any) -> Run:
        """
        Run *program*, pinned, with the value for *key*, and return the `Run` to give feedback on.

        Without *key* it is what the rollout's own key says of the named inputs.
        """
        pinned, value = self._chosen(program, key, named)
        run: Run = pinned.record(*inputs, **named)
        self._tried.add(run, value)
        return run

    async def arun(self, program: Any, *inputs: Any, key: Any = None, **named: Any) -> Run:
        """`run`, awaited: calls `aforward`, or `forward` in a thread."""
        pinned, value = await self.session._call(self._chosen, program, key, named)
        run: Run = await pinned.arecord(*inputs, **named)
        self._tried.add(run, value)
        return run

    def _chosen(self, program: Any, key: Any, named: Mapping[str, Any]) -> tuple[Any, Any]:
        """*program* with the value for *key*, and that value."""
        if key is None:
            key = self._key_of(named)
        value, session = self.choose(key), self.session
        live = session.attachment(
            program, lambda: program.bind(session)
        )  # declares what the snapshot is to have
        return live.pinned(overlaid(session.snapshot(), {self.name: value})), value

    def _key_of(self, named: Mapping[str, Any]) -> Any:
        if callable(self._key):
            return self._key(named)
        if self._key is None or self._key not in named:
            raise errors.InvalidValue.expecting(
                "given, or the name of an input that every run has", errors.shown(self._key)
            ).at("key", self.session.id)
        return named[self._key]

    def feedback(self, key: Any, score: float) -> None:
        """The same as `Session.feedback`, where the run is no longer at hand, by its key."""
        self._score(self.choose(key), finite(score))

    async def afeedback(self, key: Any, score: float) -> None:
        """`feedback`, awaited."""
        await self.session._call(self.feedback, key, score)

    def _hear(self, run: Run, score: float) -> None:
        value = self._tried.take(run)
        if value is not None:
            self._score(value, score)

    def _overtaken(self) -> bool:
        if self.session.get(self.name) == self.baseline:
            return False
        with self._lock:
            if self.state == "running":
                self.state = "overtaken"
        self._leave()
        return True

    def _score(self, value: Any, score: float) -> None:
        if self._overtaken():
            return
        with self._lock:
            if self.state != "running":
                return
            self.samples[value].add(score)
            found = self._decide()
        if found is not None:
            self._end(*found)

    def _decide(self) -> tuple[State, Any, float] | None:
        """Look, if a look is due."""
        baseline = self.samples[self.baseline]
        others = {value: one for value, one in self.samples.items() if value != self.baseline}
        due = self.guard.due(self._look)
        if min(one.count for one in self.samples.values()) < due:
            return None
        self._look += 1
        allowed = self.guard.alpha / (self.guard.looks * len(others))
        tested = {value: self.guard.p(one, baseline) for value, one in others.items()}
        better = {
            value: p for value, p in tested.items() if p <= allowed and others[value].mean > baseline.mean
        }
        if better:
            winner = max(better, key=lambda value: others[value].mean)
            self.state = "promoted"
            return "promoted", winner, better[winner]
        if all(p <= allowed for p in tested.values()):
            self.state = "rolled back"
            return "rolled back", self.baseline, max(tested.values())
        if self._look >= self.guard.looks:
            self.state = "inconclusive"
            return "inconclusive", self.baseline, min(tested.values())
        return None

    def _end(self, state: State, value: Any, p: float) -> None:
        self._leave()
        self._note(
            state,
            {
                "test": "Welch, two-sided, Bonferroni over looks and candidates",
                "p": p,
                "alpha": self.guard.alpha,
                "look": self._look,
                "scores": {
                    str(one): {"n": sample.count, "mean": sample.mean} for one, sample in self.samples.items()
                },
            },
            value,
        )

    def _note(self, state: str, why: Mapping[str, Any], value: Any = None) -> None:
        """Write to the history of the variable: what was there, or what was decided."""
        set_to = self.baseline if value is None else value
        while (record := self.session.record(self.name)).value == self.baseline:
            try:
                self.session.set(
                    self.name, set_to, {"rollout": state, **why}, source="rollout", expect=record.version
                )
            except errors.VersionConflict:
                continue
            return
        self.state = "overtaken"

    def close(self) -> None:
        """End it undecided: what was there before stays."""
        with self._lock:
            if self.state != "running":
                return
            self.state = "closed"
        self._leave()
        self._note("closed", {})

    async def aclose(self) -> None:
        """`close`, awaited."""
        await self.session._call(self.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        counts = ", ".join(f"{value}: {one.count}" for value, one in self.samples.items())
        return f"<Rollout of '{self.name}' {self.state}; scores {counts}>"

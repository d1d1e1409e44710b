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
from dspex.feedback import Feedback, Tried, bound_in, check_tellable, finite, labels, overlaid, run_on

if TYPE_CHECKING:
    from typing import Self

    from dspex.pool.base import BasePool
    from dspex.records import Snapshot
    from dspex.runs import Run
    from dspex.session import Session

__all__ = ["Guard", "Rollout", "State"]

State: TypeAlias = Literal["running", "promoted", "rolled back", "inconclusive", "closed", "overtaken"]

LEAST = 20
"""The fewest scores of each value with which the test means anything."""

MOST = 32
"""The most values at once: the history tells of each."""


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


@attrs.frozen
class _Found:
    """What the scores say."""

    state: State
    value: Any
    p: float


class Rollout:
    """
    What `Session.rollout` returns: runs get a share of the values each, until one is promoted or all are
    given up.

    The session's own value stays as it is meanwhile; only runs made through `run` get another. When somebody
    else sets the variable to another value, the rollout is over: `overtaken`, and what they have set stays.
    What was decided and cannot be set now, while somebody holds a claim for instance, is tried again at each
    score; until then the rollout is running, and `hindered` says why.
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
        self._found: _Found | None = None
        self._writing = False
        self.hindered: errors.DspexError | None = None
        """Why what was decided is not set yet."""
        check_tellable(session, name)
        self.shares = {session.check(name, value): share for value, share in shares.items()}
        """What part of the runs gets each value."""
        self.baseline = session.get(name)
        """The value that was there before."""
        self._check()
        self.samples = {value: Sample() for value in self.shares}
        """The scores so far, by value."""
        shown = labels(session.variables[name].kind, self.shares)
        self._labels = dict(zip(self.shares, shown, strict=True))
        for value in self.shares:
            if value != self.baseline:
                session.fork({name: value}).close()  # a rule may be against it
        self._deaf = Feedback.of(session).listen(self._hear)
        try:
            self._enter()
            of = {self._labels[value]: share for value, share in self.shares.items()}
            self._note("started", {"shares": of}, self.baseline)
        except BaseException:
            self._leave()
            raise

    def _enter(self) -> None:
        """Be the only one of this variable here."""
        while (first := Feedback.of(self.session).enter(self.name, self)) is not self:
            if first.state == "running" and not first._overtaken():
                raise errors.InvalidCall(
                    f"session '{self.session.id}' has a rollout of '{self.name}' that still runs: {first!r}. "
                    "Wait for its end, or close() it.",
                    session=self.session.id,
                    name=self.name,
                )
            first._leave()

    def _leave(self) -> None:
        self._deaf()
        Feedback.of(self.session).leave(self.name, self)

    def _check(self) -> None:
        shares = self.shares.values()
        if len(self.shares) < 2 or not all(0 < one < 1 for one in shares) or not math.isclose(sum(shares), 1):
            raise errors.InvalidValue.expecting(
                "two or more values whose shares, each above 0, make 1", errors.shown(dict(self.shares))
            ).at("shares", self.session.id)
        if len(shares) > MOST:
            raise errors.InvalidValue.expecting(f"of at most {MOST} values", str(len(shares))).at(
                "shares", self.session.id
            )
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

    def run(
        self,
        program: Any,
        *inputs: Any,
        key: Any = None,
        timeout: float | None = None,
        pool: BasePool | None = None,
        **named: Any,
    ) -> Run:
        """
        Run *program*, pinned, with the value for *key*, and return the `Run` to give feedback on.

        Args:
            program: A `Program` class, or a bound program.
            key: Without it, it is what the rollout's own key says of the named inputs.
            timeout: Seconds after which `DeadlineExceeded` is raised.
            pool: Let a worker of this pool do it.

        Raises:
            InvalidCall: The rollout was closed. One that was decided runs with what it has set.
        """
        snapshot, sample = self._chosen(program, key, named)
        run = run_on(program, self.session, snapshot, inputs, named, timeout=timeout, pool=pool)
        if sample is not None:
            self._tried.add(run, sample)
        return run

    async def arun(self, program: Any, *inputs: Any, key: Any = None, **named: Any) -> Run:
        """`run`, awaited: calls `aforward`, or `forward` in a thread."""
        snapshot, sample = await self.session._call(self._chosen, program, key, named)
        live = bound_in(self.session, program)
        run: Run = await live.pinned(snapshot).arecord(*inputs, **named)
        if sample is not None:
            self._tried.add(run, sample)
        return run

    def _chosen(self, program: Any, key: Any, named: Mapping[str, Any]) -> tuple[Snapshot, Sample | None]:
        """What a run with *key* reads, and where its score goes; nowhere if somebody else has set it."""
        if self.state == "closed":
            raise errors.InvalidCall(
                f"the rollout of '{self.name}' in session '{self.session.id}' was closed and gives no more "
                "runs; begin another, or run the program on the session.",
                session=self.session.id,
                name=self.name,
            )
        if key is None:
            key = self._key_of(named)
        value = self.choose(key)
        bound_in(self.session, program)  # declares what the snapshot is to have
        return overlaid(self.session.snapshot(), {self.name: value}), self.samples.get(value)

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
        checked = finite(score)
        sample = self.samples.get(self.choose(key))
        if sample is not None:
            self._score(sample, checked)

    async def afeedback(self, key: Any, score: float) -> None:
        """`feedback`, awaited."""
        await self.session._call(self.feedback, key, score)

    def _hear(self, run: Run, score: float) -> None:
        sample: Sample | None = self._tried.take(run)
        if sample is not None:
            self._score(sample, score)

    def _overtaken(self) -> bool:
        now = self.session.get(self.name)
        if now == self.baseline:
            return False
        with self._lock:
            if self._writing:  # it may be what was decided here
                return False
            if self.state == "running":
                # What was decided may have been set although the answer of the store was lost.
                ours = self._found is not None and self._found.value == now
                self.state = self._found.state if self._found is not None and ours else "overtaken"
        self._leave()
        return True

    def _score(self, sample: Sample, score: float) -> None:
        if self._overtaken():
            return
        with self._lock:
            if self.state != "running":
                return
            if self._found is None:
                sample.add(score)
                self._found = self._decide()
        self._end()

    def _decide(self) -> _Found | None:
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
            return _Found("promoted", winner, better[winner])
        if all(p <= allowed for p in tested.values()):
            return _Found("rolled back", self.baseline, max(tested.values()))
        if self._look >= self.guard.looks:
            return _Found("inconclusive", self.baseline, min(tested.values()))
        return None

    def _end(self) -> None:
        """Set what was decided; the state is what the store has taken."""
        with self._lock:
            if self._found is None or self._writing or self.state != "running":
                return
            found, self._writing = self._found, True
        state: State | None = None
        try:
            state = found.state if self._note(found.state, self._why(found), found.value) else "overtaken"
        except (errors.Claimed, errors.RuleBroken, errors.StoreUnavailable) as error:
            self.hindered = error
        finally:
            with self._lock:
                self._writing = False
                if state is not None:
                    self.state, self.hindered = state, None
        if state is not None:
            self._leave()

    def _why(self, found: _Found) -> Mapping[str, Any]:
        return {
            "test": "Welch, two-sided, Bonferroni over looks and candidates",
            "p": found.p,
            "alpha": self.guard.alpha,
            "look": self._look,
            "scores": {
                self._labels[value]: {"n": sample.count, "mean": sample.mean}
                for value, sample in self.samples.items()
            },
        }

    def _note(self, state: str, why: Mapping[str, Any], value: Any) -> bool:
        """Set the variable, with what it is for in the history, unless somebody else has set another one."""
        while (record := self.session.record(self.name)).value == self.baseline:
            try:
                self.session.set(
                    self.name, value, {"rollout": state, **why}, source="rollout", expect=record.version
                )
            except errors.VersionConflict:
                continue
            return True
        return False

    def close(self) -> None:
        """
        End it undecided: what was there before stays.

        What was decided but could not be set is tried once more. The rollout has ended also where the history
        cannot be told so, and that is raised.
        """
        self._end()
        with self._lock:
            if self.state != "running":
                return
            self.state = "closed"
        self._leave()
        if not self._note("closed", {}, self.baseline):
            self.state = "overtaken"

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
        counts = ", ".join(f"{self._labels[value]}: {one.count}" for value, one in self.samples.items())
        rest = "" if self.hindered is None else f"; not set yet: {self.hindered}"
        return f"<Rollout of '{self.name}' {self.state}; scores {counts}{rest}>"

"""One variable as a direction to search in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import attrs
import msgspec

from dspex import errors
from dspex.commits import Condition, Declaration
from dspex.kinds import Boolean, Choice, Float, Integer, Kind, ModuleChoice, Text

if TYPE_CHECKING:
    import random

__all__ = ["Dimension", "Encoded", "Options", "Range", "dimension_of"]

Encoded: TypeAlias = bool | int | float | str | None
"""How a value looks to an engine that knows only scalars."""


@attrs.frozen
class Range:
    """The numbers from *low* to *high*."""

    low: float
    high: float
    step: float | None
    log: bool
    whole: bool

    def __str__(self) -> str:
        parts = [f"{self.low:g} to {self.high:g}"]
        if self.step is not None and not (self.whole and self.step == 1):
            parts.append(f"in steps of {self.step:g}")
        return ", ".join([*parts, "by magnitude"] if self.log else parts)

    def sample(self, dice: random.Random) -> float:
        """One of the numbers; magnitudes are equally likely where *log* is set."""
        if self.step is not None:
            return self._stepped(dice.randint(0, self._steps))
        if self.log:
            number = math.exp(dice.uniform(math.log(self.low), math.log(self.high)))
        else:
            number = dice.uniform(self.low, self.high)
        return self._inside(number)

    def points(self, count: int) -> tuple[float, ...]:
        """At most *count* of the numbers, evenly from the lowest to the highest."""
        if self.step is not None:
            numbers = [self._stepped(round(index)) for index in _even(0, self._steps, count)]
        elif self.log:
            numbers = [
                self._inside(math.exp(at)) for at in _even(math.log(self.low), math.log(self.high), count)
            ]
        else:
            numbers = [self._inside(number) for number in _even(self.low, self.high, count)]
        return tuple(dict.fromkeys(numbers))

    @property
    def _steps(self) -> int:
        assert self.step is not None
        return int((self.high - self.low) / self.step + 1e-9)

    def near(self, number: float) -> float:
        """The one of the numbers that *number* stands for: engines may be off by the last digit."""
        if self.step is None or self.whole:
            return self._inside(number)
        return self._stepped(round((number - self.low) / self.step))

    def _stepped(self, steps: int) -> float:
        assert self.step is not None
        # In decimals, as who declares a step of 0.1 means 0.3 and not 0.30000000000000004.
        return self._inside(float(Decimal(str(self.low)) + steps * Decimal(str(self.step))))

    def _inside(self, number: float) -> float:
        number = min(max(number, self.low), self.high)
        return round(number) if self.whole else number


def _even(low: float, high: float, count: int) -> list[float]:
    if count < 2 or low == high:
        return [low]
    return [low + (high - low) * index / (count - 1) for index in range(count)]


@attrs.frozen(eq=False)
class Options:
    """A few values, each with a label."""

    values: tuple[Any, ...]
    labels: tuple[Encoded, ...]
    """What stands for the values where only scalars can be; those of long values say what they hold."""
    ordered: bool

    def __str__(self) -> str:
        return ", ".join(map(str, self.labels))


@attrs.frozen(eq=False)
class Dimension:
    """One variable that an optimizer may set."""

    name: str
    """As it is called in a session."""
    kind: Kind[Any]
    initial: Any
    """Where the search starts; as the kind stores it."""
    over: Range | Options
    when: Condition | None
    """On another dimension; None where it always matters."""
    description: str

    def sample(self, dice: random.Random) -> Any:
        """A value, each as likely as the others."""
        if isinstance(self.over, Range):
            return self.kind.check(self.over.sample(dice))
        return dice.choice(self.over.values)

    def points(self, count: int) -> tuple[Any, ...]:
        """All values, or *count* of a range."""
        if isinstance(self.over, Range):
            return tuple(map(self.kind.check, self.over.points(count)))
        return self.over.values

    def encode(self, value: Any) -> Encoded:
        """
        The scalar that stands for *value*.

        Raises:
            InvalidValue: It is not in this dimension.
        """
        stored = self.kind.check(value)
        if isinstance(self.over, Range):  # from the least to the most that the kind takes
            return stored  # type: ignore[no-any-return]
        digest = _digest(self.kind, stored)
        for one, label in zip(self.over.values, self.over.labels, strict=True):
            if _digest(self.kind, one) == digest:
                return label
        expected = f"one of the {len(self.over.values)} candidates"
        raise errors.InvalidValue.expecting(expected, self.kind.show(stored)).at(self.name)

    def decode(self, scalar: Encoded) -> Any:
        """The value that *scalar* stands for."""
        if isinstance(self.over, Range):
            return self.kind.check(self.over.near(self.kind.check(scalar)))
        for one, label in zip(self.over.values, self.over.labels, strict=True):
            if type(label) is type(scalar) and label == scalar:
                return one
        expected = f"one of {errors.listed(self.over.labels)}"
        raise errors.InvalidValue.expecting(expected, errors.shown(scalar)).at(self.name)

    def describe(self) -> dict[str, Any]:
        """The dimension as plain data; equal for equal dimensions, in every process."""
        over = self.over
        what: dict[str, Any] = (
            attrs.asdict(over)
            if isinstance(over, Range)
            else {"labels": list(over.labels), "ordered": over.ordered}
        )
        when = None if self.when is None else [self.when.name, list(self.when.values)]
        return {"kind": self.kind.name, "over": what, "when": when}


def dimension_of(
    declared: Declaration, initial: Any, candidates: Iterable[Any] | None, when: Condition | None
) -> Dimension | str:
    """The dimension of a variable, or why it has none."""
    if not declared.tunable:
        return "it is declared with tunable=False"
    if declared.kind.secret:
        return "it is secret"
    over = _over(declared, initial, candidates)
    if isinstance(over, str):
        return over
    return Dimension(declared.name, declared.kind, initial, over, when, declared.description)


def _over(declared: Declaration, initial: Any, candidates: Iterable[Any] | None) -> Range | Options | str:
    kind = declared.kind
    if candidates is not None:
        return _pool(declared, initial, candidates)
    if isinstance(kind, Float | Integer):
        if kind.min is None or kind.max is None:
            return "it has no min and max to search between"
        whole = isinstance(kind, Integer)
        step = None if kind.log else kind.step if kind.step is not None else 1 if whole else None
        return Range(kind.min, kind.max, step, kind.log, whole)
    if isinstance(kind, Boolean):
        return _options(kind, (False, True), ordered=False)
    if isinstance(kind, Choice):
        return _options(kind, kind.choices, ordered=kind.ordered)
    if isinstance(kind, ModuleChoice):
        return _options(kind, kind.choices, ordered=False)
    if isinstance(kind, Text) and kind.choices is not None:
        return _options(kind, kind.choices, ordered=False)
    return "it can have any value; give candidates to choose from"


def _pool(declared: Declaration, initial: Any, candidates: Iterable[Any]) -> Options:
    """The declared initial value, then *candidates*, then what the variable has now; each once."""
    kind = declared.kind
    values = {_digest(kind, declared.initial): declared.initial}
    for index, candidate in enumerate(candidates):
        try:
            stored = kind.check(candidate)
        except errors.InvalidValue as error:
            raise error.at(f"candidate {index} for {declared.name}") from None
        values.setdefault(_digest(kind, stored), stored)
    values.setdefault(_digest(kind, initial), initial)
    return _options(kind, tuple(values.values()), ordered=False)


def _options(kind: Kind[Any], values: Sequence[Any], *, ordered: bool) -> Options:
    plain = all(one is None or type(one) in (bool, int, float, str) for one in values)
    # Engines hold 1, 1.0 and True for the same.
    if plain and len(set(values)) == len(values) and all(len(str(one)) <= 60 for one in values):
        return Options(tuple(values), tuple(values), ordered)
    return Options(tuple(values), tuple(_label(kind, one) for one in values), ordered)


def _label(kind: Kind[Any], value: Any) -> str:
    digest = _digest(kind, value)
    if isinstance(value, str):
        return f"{digest} {' '.join(value.split())[:40]}".strip()
    if isinstance(value, tuple):
        return f"{digest} {len(value)} items"
    return f"{digest} {kind.show(value)[:40]}"


def _digest(kind: Kind[Any], value: Any) -> str:
    """Names a value by what is in it, alike in every process."""
    import hashlib

    packed = msgspec.msgpack.encode(kind.dump(value))
    return hashlib.sha256(packed).hexdigest()[:8]

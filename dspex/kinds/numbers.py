"""Kinds of one number. Their `check` is on the path of every write, and of nothing else as often."""

from __future__ import annotations

import math
import sys
from abc import abstractmethod
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from attrs import Factory, field, frozen

from .base import Kind
from .constraints import NotBelow, finite, flag, if_set, int64, positive, refusal, to_float, to_int, within
from .plain import INT64_MAX, INT64_MIN, is_int64

if TYPE_CHECKING:
    import attrs

__all__ = ["Float", "Integer"]

N = TypeVar("N", int, float)


def _above_zero_for_log(kind: Float | Integer, _: attrs.Attribute[bool], log: object) -> None:
    if log and (kind.min is None or kind.min <= 0):
        raise refusal(kind, "min", "above 0 when log is True", kind.min)
    # Whoever searches by magnitudes leaves the grid: Optuna has no such distribution.
    if log and kind.step is not None and not (isinstance(kind.step, int) and kind.step == 1):
        raise refusal(kind, "step", "left out when log is True", kind.step)


# The fast path of `check` is one comparison with these two. It lets through what needs no more thought:
# NaN compares false, the infinities are outside, and steps make the range empty so that all is refused
# there and judged in full.


def _lowest(kind: Float) -> float:
    if kind.step is not None:
        return math.inf
    return -sys.float_info.max if kind.min is None else kind.min


def _highest(kind: Float) -> float:
    return sys.float_info.max if kind.max is None else kind.max


def _lowest_int(kind: Integer) -> float:
    if kind.step is not None:
        return math.inf
    return INT64_MIN if kind.min is None else kind.min


def _highest_int(kind: Integer) -> int:
    return INT64_MAX if kind.max is None else kind.max


class _Number(Kind[N]):
    """What numbers share once they are of the right type."""

    __slots__ = ()

    fixed: ClassVar[bool] = True
    json_type: ClassVar[str]

    if TYPE_CHECKING:
        min: N | None
        max: N | None
        step: N | None

    @abstractmethod
    def _on_grid(self, number: N, step: N) -> bool:
        """Say whether *number* is a whole number of steps away from min, or from 0."""

    def _bounded(self, number: N) -> N:
        """Return *number*, or say which constraint it breaks."""
        if self.min is not None and number < self.min:
            raise self.refusal(f"at least {self.min}", number)
        if self.max is not None and number > self.max:
            raise self.refusal(f"at most {self.max}", number)
        if self.step is not None and not self._on_grid(number, self.step):
            above = "" if self.min is None else f" above {self.min}"
            raise self.refusal(f"a multiple of {self.step}{above}", number)
        return number

    def json_schema(self) -> dict[str, Any]:
        """Return type and bounds."""
        bounds = {"minimum": self.min, "maximum": self.max}
        return {"type": self.json_type} | {k: v for k, v in bounds.items() if v is not None}

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether the range is inside the other's, on the same grid if that has one."""
        return (
            isinstance(other, type(self))
            and within(self.min, other.min, sign=-1)
            and within(self.max, other.max)
            and other.step in (None, self.step)
            and (other.step is None or self.min == other.min)
        )


@frozen(repr=False, kw_only=True)
class Float(_Number[float], name="float"):
    """
    A float.

    Takes finite floats and ints, and what counts as a real number elsewhere (NumPy's scalars, fractions);
    not bool, not text. Stores a float, bit for bit as given. With `allow_nan` NaN is a value too, and an
    infinity where no bound forbids it.
    """

    json_type: ClassVar[str] = "number"

    min: float | None = field(default=None, converter=to_float, validator=if_set(finite))
    """The least value."""

    max: float | None = field(default=None, converter=to_float, validator=if_set(finite, NotBelow("min")))
    """The greatest value."""

    step: float | None = field(default=None, converter=to_float, validator=if_set(finite, positive))
    """Values are whole numbers of steps above min, or above 0, to about nine digits; none is rounded."""

    log: bool = field(default=False, validator=[flag, _above_zero_for_log])
    """A hint to whoever searches: magnitudes matter. Needs a min above 0 and no step."""

    allow_nan: bool = field(default=False, validator=flag)
    """Whether NaN and the infinities are values."""

    _low: float = field(default=Factory(_lowest, takes_self=True), init=False, eq=False)
    _high: float = field(default=Factory(_highest, takes_self=True), init=False, eq=False)

    def check(self, value: object) -> float:
        """Return *value* as a float."""
        if type(value) is float and self._low <= value <= self._high:
            return value
        return self._judge(self._float(value))

    def _float(self, value: object) -> float:
        if not isinstance(value, Real) or isinstance(value, bool):
            raise self.refusal("a float", value)
        try:
            return float(value)
        except OverflowError:
            raise self.refusal("a finite number", value) from None

    def _judge(self, number: float) -> float:
        if not math.isfinite(number) and not self.allow_nan:
            raise self.refusal("a finite number", number)
        return number if math.isnan(number) else self._bounded(number)

    def _on_grid(self, number: float, step: float) -> bool:
        steps = (number - (self.min or 0.0)) / step
        return math.isfinite(steps) and math.isclose(steps, round(steps), rel_tol=1e-14, abs_tol=1e-9)

    def parse(self, text: str) -> float:
        """Return the number that *text* spells."""
        try:
            number = float(text)
        except ValueError:
            raise self.refusal("a float", text) from None
        return self.check(number)

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether the range is inside the other's, and NaN a value of both or not of this."""
        return _Number.narrows(self, other) and (
            other.allow_nan or not self.allow_nan  # type: ignore[attr-defined]
        )


@frozen(repr=False, kw_only=True)
class Integer(_Number[int], name="integer"):
    """
    A 64-bit integer.

    Takes ints and whole floats, and what counts as such elsewhere (NumPy's scalars, fractions); not bool,
    not text. Stores an int.
    """

    json_type: ClassVar[str] = "integer"

    min: int | None = field(default=None, converter=to_int, validator=if_set(int64))
    """The least value."""

    max: int | None = field(default=None, converter=to_int, validator=if_set(int64, NotBelow("min")))
    """The greatest value."""

    step: int | None = field(default=None, converter=to_int, validator=if_set(int64, positive))
    """Values are whole numbers of steps above min, or above 0."""

    log: bool = field(default=False, validator=[flag, _above_zero_for_log])
    """A hint to whoever searches: magnitudes matter. Needs a min above 0 and no step."""

    _low: float = field(default=Factory(_lowest_int, takes_self=True), init=False, eq=False)
    _high: int = field(default=Factory(_highest_int, takes_self=True), init=False, eq=False)

    def check(self, value: object) -> int:
        """Return *value* as an int."""
        if type(value) is int and self._low <= value <= self._high:
            return value
        return self._judge(self._whole(value))

    def _whole(self, value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise self.refusal("an integer", value)
        if isinstance(value, Integral):
            return int(value)
        try:
            whole: int = int(value)  # type: ignore[call-overload]  # NumPy's have no __trunc__, but this
        except (OverflowError, ValueError):  # an infinity, NaN
            raise self.refusal("a whole number", value) from None
        if whole != value:
            raise self.refusal("a whole number", value)
        return whole

    def _judge(self, number: int) -> int:
        if not is_int64(number):
            raise self.refusal("a 64-bit integer", number)
        return self._bounded(number)

    def _on_grid(self, number: int, step: int) -> bool:
        return (number - (self.min or 0)) % step == 0

    def parse(self, text: str) -> int:
        """Return the whole number that *text* spells: `8`, `8.0`, `8e3`."""
        for spelled in (int, float):
            try:
                number = spelled(text)
            except ValueError:
                continue
            return self.check(number)
        raise self.refusal("an integer", text)

"""What the declarations of a program let an optimizer try, all variables together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

import attrs
import msgspec

from dspex import errors
from dspex.commits import Condition, Declaration
from dspex.rules import Rule, first_refusal
from dspex.spaces import exports
from dspex.spaces.dimensions import Dimension, dimension_of
from dspex.spaces.mapping import Mapped, map_point

if TYPE_CHECKING:
    import random
    from collections import Counter

__all__ = ["SearchSpace"]

TRIES = 1_000
"""Samples in a row that rules may refuse before the search gives up."""


@attrs.frozen(eq=False)
class SearchSpace(Mapping[str, Dimension]):
    """
    The dimensions of a program by the names of its variables, parents of conditions first.

    A point of the space is a mapping from names to values which has the dimensions that matter at that point
    and no others: `max_iters` is there only while the strategy is the one that has iterations.
    """

    program: str
    dimensions: Mapping[str, Dimension]
    left_out: Mapping[str, str]
    """The variables that are no dimension, and why."""
    start: Mapping[str, Any]
    """The values of all variables where the search starts."""
    rules: tuple[Rule, ...] = ()

    @classmethod
    def of(
        cls,
        program: str,
        declarations: Iterable[Declaration],
        rules: tuple[Rule, ...],
        candidates: Mapping[str, Iterable[Any]],
        at: Mapping[str, Any],
    ) -> Self:
        """The space of a program; what `Program.search_space` calls."""
        declared = {one.name: one for one in declarations}
        for name in candidates:
            if name not in declared:
                raise errors.unknown_variable(program, name, declared)
        start = {name: at.get(name, one.initial) for name, one in declared.items()}
        found: dict[str, Dimension] = {}
        left_out: dict[str, str] = {}
        for name in _parents_first(declared):
            one = declared[name]
            when: Condition | None = one.when
            if when is not None and when.name not in found:
                # What it hangs on stays as it is, so the condition is decided.
                if not when.holds(start):
                    left_out[name] = f"it matters only while {when.name} is {errors.listed(when.values)}"
                    continue
                when = None
            dimension = dimension_of(one, start[name], candidates.get(name), when)
            if isinstance(dimension, str):
                left_out[name] = dimension
                if name in candidates:
                    raise errors.InvalidDeclaration(
                        f"{program}.{name} cannot be searched: {dimension}.", name=name
                    )
            else:
                found[name] = dimension
        return cls(program, found, left_out, start, rules)

    def __getitem__(self, name: str) -> Dimension:
        return self.dimensions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.dimensions)

    def __len__(self) -> int:
        return len(self.dimensions)

    def only(self, names: Iterable[str]) -> SearchSpace:
        """The space of these variables, in which the others stay as they are."""
        wanted = set(names)
        kept = {name: one for name, one in self.dimensions.items() if name in wanted}
        left_out = {name: "the search is for others" for name in self.dimensions if name not in wanted}
        for name, one in kept.items():
            if one.when is not None and one.when.name not in kept:
                kept[name] = attrs.evolve(one, when=None)
        return attrs.evolve(self, dimensions=kept, left_out={**self.left_out, **left_out})

    # ---- points -----------------------------------------------------------------------------------

    def active(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """*values* without the dimensions that do not matter with them."""
        point: dict[str, Any] = {}
        for name, dimension in self.dimensions.items():
            if name in values and (dimension.when is None or dimension.when.holds(point)):
                point[name] = values[name]
        return point

    def completed(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """
        The point that has *values*, and where it has none, what the search starts with.

        Raises:
            UnknownVariable, InvalidValue: There is no such point.
        """
        for name in values:
            if name not in self.dimensions:
                raise errors.unknown_variable(f"the search space of {self.program}", name, self.dimensions)
        wanted = {
            name: one.decode(one.encode(values[name])) if name in values else one.initial
            for name, one in self.dimensions.items()
        }
        return self.active(wanted)

    @property
    def initial(self) -> dict[str, Any]:
        """The point where the search starts."""
        return self.active({name: one.initial for name, one in self.dimensions.items()})

    def refusal(self, point: Mapping[str, Any]) -> str | None:
        """What a rule of the program says against *point*."""
        broken = first_refusal(self.rules, {**self.start, **point})
        return None if broken is None else broken[1]

    def sample(self, dice: random.Random) -> dict[str, Any]:
        """
        A point by chance that no rule is against.

        Raises:
            LimitExceeded: A rule refused 1,000 in a row.
        """
        said: list[str] = []
        while len(said) < TRIES:
            point: dict[str, Any] = {}
            for name, one in self.dimensions.items():
                if one.when is None or one.when.holds(point):
                    point[name] = one.sample(dice)
            refused = self.refusal(point)
            if refused is None:
                return point
            said.append(refused)
        raise self.refused_all(said)

    def refused_all(self, said: Iterable[str]) -> errors.LimitExceeded:
        """The error for a search in which rules refused everything, with what they said most."""
        import collections

        counts: Counter[str] = collections.Counter(said)
        most = counts.most_common(1)[0][0] if counts else ""
        return errors.LimitExceeded(
            f"the rules of {self.program} refused {counts.total()} candidates in a row, most often: {most}. "
            "Narrow the kinds of its variables, or loosen the rule.",
            tries=counts.total(),
            said=most,
        )

    def grid(self, points: int = 5) -> Iterator[dict[str, Any]]:
        """
        Every point that no rule is against, with at most *points* values of each range; one by one.

        A dimension that does not matter makes no points of its own.
        """
        names = list(self.dimensions)

        def below(index: int, point: dict[str, Any]) -> Iterator[dict[str, Any]]:
            if index == len(names):
                if self.refusal(point) is None:
                    yield dict(point)
                return
            one = self.dimensions[names[index]]
            if one.when is not None and not one.when.holds(point):
                yield from below(index + 1, point)
                return
            for value in one.points(points):
                yield from below(index + 1, {**point, one.name: value})

        if points < 1:
            raise errors.InvalidValue.expecting("at least 1", errors.shown(points)).at("points")
        return below(0, {})

    # ---- as others know it ------------------------------------------------------------------------

    def encode(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """*point* in scalars, as engines and reports show it."""
        return {name: self.dimensions[name].encode(value) for name, value in point.items()}

    def suggest(self, trial: Any) -> dict[str, Any]:
        """The point that an `optuna.Trial` suggests, condition by condition."""
        return exports.suggest(self.dimensions, trial)

    def to_optuna(self) -> dict[str, Any]:
        """
        Optuna's distributions by name, for `study.ask(fixed_distributions=…)`.

        Such a mapping cannot say conditions: it has all dimensions. `suggest(trial)` honours them.
        """
        return exports.to_optuna(self.dimensions)

    def to_configspace(self) -> Any:
        """A `ConfigSpace.ConfigurationSpace` with the conditions. Rules are code and are not in it."""
        return exports.to_configspace(self.program, self.dimensions)

    def to_json_schema(self) -> dict[str, Any]:
        """A JSON Schema (2020-12) of the points as objects, with the conditions. Rules are not in it."""
        return exports.to_json_schema(self.program, self.dimensions)

    def describe(self) -> dict[str, Any]:
        """The space as plain data: equal for equal spaces, so that a stored study knows its own."""
        return {name: one.describe() for name, one in self.dimensions.items()}

    @property
    def fingerprint(self) -> str:
        """A short name for exactly this space."""
        import hashlib

        described = msgspec.json.encode(self.describe(), order="sorted")
        return hashlib.sha256(described).hexdigest()[:12]

    def map(self, encoded: Mapping[str, Any], before: Mapping[str, Any] | None = None) -> Mapped:
        """
        A point of an older space of this program as one of this space, or why there is none.

        Args:
            encoded: The point in scalars, as `encode` gives it and studies keep it.
            before: Where the older search started, in scalars: a variable that is no dimension any more may
                be dropped if it had that value.
        """
        return map_point(self, encoded, before or {})


def _parents_first(declared: Mapping[str, Declaration]) -> list[str]:
    order: dict[str, None] = {}

    def add(name: str) -> None:
        when = declared[name].when
        if when is not None and when.name in declared:
            add(when.name)
        order.setdefault(name)

    for name in declared:
        add(name)
    return list(order)

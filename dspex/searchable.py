"""What makes a program class give its search space."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from dspex.rules import Rule
    from dspex.spaces.space import SearchSpace
    from dspex.variables import Variable

__all__ = ["Searchable"]


class Searchable:
    """A class with declared variables and rules."""

    __slots__ = ()

    if TYPE_CHECKING:
        variables: ClassVar[Mapping[str, Variable[Any]]]
        _rules: ClassVar[tuple[Rule, ...]]

    @classmethod
    def search_space(
        cls,
        candidates: Mapping[str, Iterable[Any]] | None = None,
        *,
        at: Mapping[str, Any] | None = None,
    ) -> SearchSpace:
        """
        What an optimizer may try: a dimension for each variable of the tree that can be searched.

        Args:
            candidates: Values to choose from, by name, for variables whose kind has too many: prompts, demos,
                free text. What the variable has anyway is one of them, too.
            at: Where the search starts: a session's snapshot; by default the initial values.

        Raises:
            InvalidDeclaration, InvalidValue, UnknownVariable: *candidates* do not fit.
        """
        from dspex.spaces.space import SearchSpace

        declarations = [variable.declaration() for variable in cls.variables.values()]
        return SearchSpace.of(cls.__name__, declarations, cls._rules, candidates or {}, at or {})

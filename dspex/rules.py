"""
Rules: which values of several variables may not come together, as code of a program class.

A rule is code, so it holds where the code is: in every process that has bound the program, for each handle
there of that session and for forks. Such a process never makes a forbidden combination, not even when two
commits race: a commit that depends on what a rule has read is refused by the store if that has changed
meanwhile, and is judged again. A process that never bound the program is not held to its rules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.commits import Commit, Receipt
from dspex.locks import ForkSafeLock
from dspex.stores.base import ClosedLedger

if TYPE_CHECKING:
    from dspex.session import Session
    from dspex.stores import Ledger

__all__ = ["Rule", "Values", "abide", "first_refusal", "make_ruled", "rule"]

_adding = ForkSafeLock()


class _UnknownAttribute(AttributeError):
    """What `hasattr` takes for a no; where no rule does so, the *error* is raised."""

    def __init__(self, error: errors.UnknownVariable) -> None:
        super().__init__(error.message)
        self.error = error


class Values:
    """
    What a rule reads: `values.temperature`, `values.retriever.k`, `values["retriever.k"]`.

    A module reads as its name. Values cannot be set here.
    """

    __slots__ = ("_prefix", "_read", "_values")

    def __init__(self, values: Mapping[str, Any], prefix: str = "", read: set[str] | None = None) -> None:
        self._values = values
        self._prefix = prefix
        self._read = set() if read is None else read

    def __getitem__(self, name: str) -> Any:
        full = self._prefix + name
        if full in self._values:
            self._read.add(full)
            return self._values[full]
        if any(known.startswith(f"{full}.") for known in self._values):
            return Values(self._values, f"{full}.", self._read)
        inner = [one.removeprefix(self._prefix) for one in self._values if one.startswith(self._prefix)]
        raise errors.unknown_variable("the program of this rule", name, inner)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            return self[name]
        except errors.UnknownVariable as error:
            raise _UnknownAttribute(error) from None


class Rule:
    """A method that `rule` made a rule of."""

    def __init__(self, function: Callable[[Any], str | None], name: str, prefix: str = "") -> None:
        self.function = function
        self.name = name
        """As it is called in a sentence: `Agent.cold_react`."""
        self.prefix = prefix
        """What comes before the names of its program's variables in a session."""
        self.__doc__ = function.__doc__

    def under(self, prefix: str) -> Rule:
        """The same rule of a program that is inside another one."""
        return Rule(self.function, self.name, prefix + self.prefix)

    def refusal(self, values: Mapping[str, Any]) -> tuple[str | None, set[str]]:
        """What the rule says against *values*, and the names that it read to know."""
        view = Values(values, self.prefix)
        try:
            said = self.function(view)
        except _UnknownAttribute as unknown:
            raise unknown.error from None
        if said is not None and not isinstance(said, str):
            raise errors.InvalidDeclaration(
                f"rule {self.name} must return a sentence or None (got {errors.shown(said, 60)}).",
                rule=self.name,
            )
        return said, view._read

    def __call__(self, values: Any) -> str | None:
        """What the rule says against *values*."""
        return self.function(values)

    def __repr__(self) -> str:
        return f"<Rule {self.name}>"


def rule(function: Callable[[Any], str | None]) -> Rule:
    """
    Make a method of a `Program` a rule on its values.

    The method gets the values that would be, as attributes, and returns None, or a sentence that says why
    they must not come together. A commit that would make them so is refused with that sentence. Write
    nothing but comparisons: it runs at every commit that sets what it reads, and at every candidate of an
    optimizer.
    """
    if not callable(function):
        raise errors.InvalidDeclaration(
            f"rule() takes a method of a Program (got {errors.shown(function, 80)})."
        )
    return Rule(function, getattr(function, "__qualname__", str(function)))


def first_refusal(rules: tuple[Rule, ...], values: Mapping[str, Any]) -> tuple[Rule, str] | None:
    """The first of *rules* that is against *values*, and what it says."""
    for one in rules:
        said, _ = one.refusal(values)
        if said is not None:
            return one, said
    return None


def abide(ledger: Ledger, rules: tuple[Rule, ...]) -> None:
    """From now on judge the commits of every handle on *ledger* by *rules*."""
    if not rules:
        return
    if isinstance(ledger, ClosedLedger):
        raise ledger.error()
    with _adding:
        new = tuple(one for one in rules if one not in ledger.rules)
        if new:
            ledger.rules = (*ledger.rules, *new)  # type: ignore[misc]  # the slot is in its class


class _Proposed(Mapping[str, Any]):
    """The values as they would be after a commit, and the versions of those that it leaves alone."""

    def __init__(self, ledger: Ledger, written: Mapping[str, Any]) -> None:
        self._ledger = ledger
        self._written = written
        self.versions: dict[str, int] = {}

    def __getitem__(self, name: str) -> Any:
        if name in self._written:
            return self._written[name]
        if name not in self._ledger.schema.kinds:
            raise KeyError(name)
        record = self._ledger.records[name]
        self.versions[name] = record.version
        return record.value

    def __contains__(self, name: object) -> bool:
        return name in self._ledger.schema.kinds

    def __iter__(self) -> Any:
        return iter(self._ledger.schema.kinds)

    def __len__(self) -> int:
        return len(self._ledger.schema.kinds)


def make_ruled(session: Session, ledger: Ledger, commit: Commit) -> Receipt:
    """
    Make *commit* in *ledger*, that of *session*, unless a rule is against it.

    Raises:
        RuleBroken: One is, which reads what this commit sets.
    """
    if not commit.writes or not ledger.rules:
        return ledger.commit(commit)
    written = {write.name: session.check(write.name, write.value) for write in commit.writes}
    while True:
        proposed = _Proposed(ledger, written)
        for one in ledger.rules:
            said, read = one.refusal(proposed)
            if said is not None and not read.isdisjoint(written):
                raise errors.rule_broken(one.name, said, session.id)
        given = {**dict(commit.given), **proposed.versions}
        try:
            return ledger.commit(commit.replacing(given=tuple(given.items())))
        except errors.VersionConflict as conflict:
            if getattr(conflict, "name", None) not in proposed.versions:
                raise

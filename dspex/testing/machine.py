"""Random operations on a session of a store, through two handles, beside a dict that knows what comes out."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from dspex import errors
from dspex.commits import Commit, Declaration, Write
from dspex.kinds import Float, Integer, Kind, ListOf, Text
from dspex.session import Session
from dspex.stores import Store

__all__ = ["check_against_a_dict"]

KINDS: dict[str, tuple[Kind[Any], Any]] = {
    "a": (Integer(min=-50, max=50), 0),
    "b": (Integer(), 1),
    "f": (Float(allow_nan=True), 0.5),
    "text": (Text(), ""),
    "items": (ListOf(Integer()), ()),
}
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "a": st.integers(-50, 50),
    "b": st.integers(-(2**63), 2**63 - 1),
    "f": st.floats(allow_nan=False),
    "text": st.text(max_size=20),
    "items": st.lists(st.integers(0, 9), max_size=4).map(tuple),
}
writes = st.dictionaries(st.sampled_from(sorted(GOOD)), st.none(), min_size=1, max_size=4).flatmap(
    lambda names: st.fixed_dictionaries({name: GOOD[name] for name in names})
)
labels = st.sampled_from(("one", "two"))

Entry = tuple[str, Any, Any, int, int]
"""A change: name, old, new, version, rev."""

_numbers = count()


class Model:
    """What a session should be."""

    def __init__(self) -> None:
        self.values = {name: initial for name, (_, initial) in KINDS.items()}
        self.versions = dict.fromkeys(KINDS, 0)
        self.rev = 0
        self.history: list[Entry] = []
        self.tags: dict[str, tuple[int, dict[str, Any]]] = {}
        self.claimed: dict[str, Any] = {}

    def write(self, values: dict[str, Any]) -> None:
        self.rev += 1
        for name, value in values.items():
            self.versions[name] += 1
            self.history.append((name, self.values[name], value, self.versions[name], self.rev))
            self.values[name] = value


class _Machine(RuleBasedStateMachine):
    """Made for one test: `store` is where the sessions are, `reopen` gives it anew."""

    store: Store
    reopen: tuple[Callable[[], Store]] | None = None
    """In a tuple, as a function in a class would be a method."""

    def __init__(self) -> None:
        super().__init__()
        self.id = f"machine-{next(_numbers)}"
        self.model = Model()
        self.ops: dict[str, tuple[int, int]] = {}
        self.open()
        self.handles[0].ledger.commit(
            Commit(declare=tuple(Declaration(name, kind, initial) for name, (kind, initial) in KINDS.items()))
        )
        self.watch()

    def open(self) -> None:
        self.handles = [Session(self.id, store=type(self).store, source="machine") for _ in range(2)]

    def watch(self) -> None:
        self.told: list[Entry] = []
        self.known = len(self.model.history)
        self.handles[1].watch(
            "*", lambda c: self.told.append((c.name, c.old, c.new, c.version, c.rev)), mode="all"
        )

    def teardown(self) -> None:
        for handle in self.handles:
            handle.close()

    @rule(values=writes, handle=st.integers(0, 1))
    def update(self, values: dict[str, Any], handle: int) -> None:
        if any(name in self.model.claimed for name in values):
            self.refused(errors.Claimed, lambda: self.handles[handle].update(values))
            return
        receipt = self.handles[handle].update(values)
        self.model.write(values)
        assert self.model.rev == receipt.rev

    @rule(values=writes, handle=st.integers(0, 1), behind=st.integers(1, 3))
    def update_at_a_stale_version(self, values: dict[str, Any], handle: int, behind: int) -> None:
        name = max(values)
        expect = {name: self.model.versions[name] + behind}
        claimed = any(one in self.model.claimed for one in values)
        wanted = errors.Claimed if claimed else errors.VersionConflict
        self.refused(wanted, lambda: self.handles[handle].update(values, expect=expect))

    @rule(values=writes, handle=st.integers(0, 1))
    def update_with_one_bad_value(self, values: dict[str, Any], handle: int) -> None:
        self.refused(errors.InvalidValue, lambda: self.handles[handle].update({**values, "a": 51}))

    @rule(values=writes, op=st.sampled_from(("x", "y", "z")), handle=st.integers(0, 1))
    def commit_with_an_op(self, values: dict[str, Any], op: str, handle: int) -> None:
        commit = Commit(tuple(Write(*item) for item in values.items()), op=op)
        ledger = self.handles[handle].ledger
        if op not in self.ops and any(name in self.model.claimed for name in values):
            self.refused(errors.Claimed, lambda: ledger.commit(commit))
            return
        receipt = ledger.commit(commit)
        if op not in self.ops:
            self.model.write(values)
            self.ops[op] = self.model.rev, len(values)
        assert self.ops[op] == (receipt.rev, len(receipt.changes))

    @rule(label=labels, handle=st.integers(0, 1))
    def tag(self, label: str, handle: int) -> None:
        self.handles[handle].tag(label)
        self.model.tags[label] = self.model.rev, dict(self.model.values)

    @rule(label=labels, handle=st.integers(0, 1))
    def roll_back(self, label: str, handle: int) -> None:
        session = self.handles[handle]
        if label not in self.model.tags:
            self.refused(errors.UnknownRevision, lambda: session.rollback(to=label))
            return
        rev, then = self.model.tags[label]
        since = {name for name, _, _, _, at in self.model.history if at > rev}
        values = {name: value for name, value in then.items() if name in since}
        if any(name in self.model.claimed for name in values):
            self.refused(errors.Claimed, lambda: session.rollback(to=label))
            return
        session.rollback(to=label)
        if values:
            self.model.write(values)

    @rule(name=st.sampled_from(("a", "b")))
    def claim(self, name: str) -> None:
        if name in self.model.claimed:
            self.refused(errors.Claimed, lambda: self.handles[0].claim([name], owner="other", ttl=600))
        else:
            self.model.claimed[name] = self.handles[0].claim([name], owner="machine", ttl=600).request.token

    @precondition(lambda self: self.model.claimed)
    @rule(value=st.integers(-50, 50))
    def write_under_the_claim(self, value: int) -> None:
        name, token = min(self.model.claimed.items())
        self.handles[1].ledger.commit(Commit((Write(name, value),), token=token))
        self.model.write({name: value})

    @precondition(lambda self: self.model.claimed)
    @rule()
    def release(self) -> None:
        name = max(self.model.claimed)
        self.handles[1].ledger.commit(Commit(release=self.model.claimed.pop(name)))

    @precondition(lambda self: type(self).reopen is not None)
    @rule()
    def close_and_open_again(self) -> None:
        epoch = self.handles[0].revision.epoch
        self.teardown()
        reopen = type(self).reopen
        assert reopen is not None
        type(self).store = reopen[0]()
        self.open()
        assert epoch == self.handles[0].revision.epoch
        self.watch()

    def refused(self, error: type[Exception], call: Callable[[], object]) -> None:
        try:
            call()
        except error:
            return
        raise AssertionError(f"{error.__name__} was not raised")

    @invariant()
    def both_handles_are_what_the_dict_says(self) -> None:
        model = self.model
        for session in self.handles:
            assert model.rev == session.revision.rev
            assert model.values == {name: session.get(name) for name in KINDS}
            assert model.versions == {name: session.record(name).version for name in KINDS}
            assert model.values == dict(session.snapshot())
            assert {label: rev for label, (rev, _) in model.tags.items()} == {
                label: at.rev for label, at in session.tags.items()
            }

    @invariant()
    def labels_keep_their_values(self) -> None:
        for label, (_, values) in self.model.tags.items():
            assert values == dict(self.handles[0].snapshot(label))

    @invariant()
    def history_is_whole(self) -> None:
        history = self.handles[1].history()
        assert self.model.history == [(c.name, c.old, c.new, c.version, c.rev) for c in history]

    @invariant()
    def the_watcher_was_told_all_in_order(self) -> None:
        assert self.model.history[self.known :] == self.told


def check_against_a_dict(
    store: Store, reopen: Callable[[], Store] | None, *, examples: int, steps: int
) -> None:
    """Run the machine; raises what it finds, in the smallest form that shows it."""
    again = None if reopen is None else (reopen,)
    machine = type("StoreMachine", (_Machine,), {"store": store, "reopen": again})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=(
                HealthCheck.too_slow,
                HealthCheck.data_too_large,
                HealthCheck.filter_too_much,
            ),
        ),
    )

"""
The contract of stores as tests, for those who write one.

    class TestMine(StoreContract):
        @pytest.fixture
        def store(self):
            with MyStore() as store:
                yield store

Needs pytest and hypothesis.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from dspex import errors
from dspex.kinds import Float, Integer
from dspex.session import Session
from dspex.stores import Store
from dspex.testing.commits import CommitContract
from dspex.testing.machine import check_against_a_dict
from dspex.testing.sessions import SessionContract
from dspex.testing.tools import Opens, now
from dspex.testing.values import VALUES, bits
from dspex.wire import pack_value

__all__ = ["StoreContract"]


class StoreContract(CommitContract, SessionContract):
    """
    What every store promises. Inherit from it in a class that pytest collects, and override `store`.

    Only the verbs of `Store` and `Ledger` and what `Session` builds on them are used. A durable store
    overrides `reopen` too; what else is to be looked at beneath, a test of the store's own looks at.
    """

    examples = 25
    """Of random operations: how many sequences."""

    steps = 30
    """How many operations each has."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """An empty store; the fixture closes it."""
        raise NotImplementedError("override the fixture `store`")

    @pytest.fixture
    def reopen(self) -> Callable[[], Store] | None:
        """
        Of a durable store: closes the store that was opened last and gives another one with the same content.

        All sessions are closed when it is called. The fixture closes what it opened.
        """
        pytest.skip("only for stores that are durable")

    @pytest.fixture
    def opens(self, store: Store) -> Iterator[Opens]:
        """Opens sessions that are closed at the end of the test."""
        with ExitStack() as stack:

            def opened(session_id: str = "contract", of: Store | None = None) -> Session:
                return stack.enter_context(
                    Session(session_id, store=store if of is None else of, source="contract")
                )

            yield opened

    @pytest.fixture
    def session(self, opens: Opens) -> Session:
        """The session 'contract' with two integers and a bounded float."""
        session = opens("contract")
        session.register("a", Integer(), initial=0)
        session.register("b", Integer(), initial=0)
        session.register("t", Float(min=0.0, max=1.5), initial=0.7)
        return session

    # ---- values -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("case", VALUES)
    def test_a_value_comes_back_bit_for_bit_or_is_refused(self, opens: Opens, case: str) -> None:
        if case.startswith(("embedding", "tensor")):
            pytest.importorskip("numpy")
        kind, value, initial = VALUES[case].kind(), VALUES[case].value(), VALUES[case].initial
        writer, reader = opens("values"), opens("values")
        writer.register("value", kind, initial=initial)
        if VALUES[case].refused:
            before = now(writer)
            with pytest.raises((errors.InvalidValue, errors.LimitExceeded)):
                writer.set("value", value)
            assert before == now(writer)
            return
        stored = bits(kind, kind.check(value))
        writer.set("value", value)
        assert stored == bits(kind, reader.get("value"))
        assert stored == bits(kind, reader.snapshot()["value"])
        assert [stored] == [bits(kind, change.value) for change in reader.history("value")]
        assert [pack_value(kind, kind.check(initial))] == [
            pack_value(kind, change.old) for change in reader.history("value")
        ]

    @pytest.mark.parametrize("case", [name for name, one in VALUES.items() if not one.refused])
    def test_a_value_is_the_same_after_opening_again(
        self, opens: Opens, reopen: Callable[[], Store], case: str
    ) -> None:
        if case.startswith(("embedding", "tensor")):
            pytest.importorskip("numpy")
        kind, value, initial = VALUES[case].kind(), VALUES[case].value(), VALUES[case].initial
        with opens("values") as session:
            session.register("value", kind, initial=initial)
            session.register("untouched", kind, initial=value)
            session.set("value", value)
            session.tag("here")
        again = opens("values", reopen())
        # Of a class of the user's a file knows the description only, until the class is declared here.
        for name in ("value", "untouched"):
            again.register(name, kind, initial=initial)
        stored = bits(kind, kind.check(value))
        assert [stored] * 3 == [
            bits(kind, again.get("value")),
            bits(kind, again.get("untouched")),
            bits(kind, again.snapshot("here")["value"]),
        ]
        (change,) = again.history("value")
        assert (stored, bits(kind, kind.check(initial))) == (bits(kind, change.value), bits(kind, change.old))

    # ---- anything ---------------------------------------------------------------------------------

    def test_random_operations_do_what_they_do_to_a_dict(self, store: Store) -> None:
        check_against_a_dict(store, None, examples=self.examples, steps=self.steps)

    def test_random_operations_and_openings_do_what_they_do_to_a_dict(
        self, store: Store, reopen: Callable[[], Store]
    ) -> None:
        check_against_a_dict(store, reopen, examples=self.examples, steps=self.steps)

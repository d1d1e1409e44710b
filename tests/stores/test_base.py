"""What a store has that its author did not write: the eight verbs, and what is made of them."""

from __future__ import annotations

import pytest

from dspex import Session, SessionClosed, StoreUnavailable
from dspex.stores import MemoryStore
from dspex.stores.base import Ledger, Store


class Kept(Ledger):
    """A session in memory, by the verbs that every ledger has to have."""

    def __init__(self, store, ledger):
        self.store, self._ledger, self.id = store, ledger, ledger.id

    epoch = property(lambda self: self._ledger.epoch)
    rev = property(lambda self: self._ledger.rev)
    schema = property(lambda self: self._ledger.schema)
    records = property(lambda self: self._ledger.records)
    tags = property(lambda self: self._ledger.tags)

    def commit(self, commit):
        return self._ledger.commit(commit)

    def snapshot(self, tag=None):
        return self._ledger.snapshot(tag)

    def history(self, name=None, since=None):
        return self._ledger.history(name, since)

    def subscribe(self, sink):
        return self._ledger.subscribe(sink)

    def unsubscribe(self, sink):
        self._ledger.unsubscribe(sink)

    def close(self):
        self._ledger.close()


class Keeper(Store):
    """The same of a store."""

    def __init__(self):
        self._store = MemoryStore()

    def open(self, session_id, *, create=True):
        return Kept(self, self._store.open(session_id, create=create))

    def sessions(self):
        return self._store.sessions()

    def delete(self, session_id):
        self._store.delete(session_id)

    def close(self):
        self._store.close()


@pytest.fixture
def kept():
    with Session("kept", store=Keeper()) as session:
        session.register("n", int, initial=0)
        yield session


def test_eight_verbs_are_all_that_a_session_needs(kept):
    told = []
    kept.watch("n", lambda change: told.append(change.value))
    change = kept.set("n", 1, source="me", expect=0)
    assert (change.version, change.source, kept.revision.rev) == (1, "me", 1)
    assert kept.swap("n", lambda n: n + 1).value == 2
    with kept.fork({"n": 5}) as fork:
        fork.commit_to_parent()
    assert (kept.get("n"), told, kept.ledger.own_versions()) == (5, [1, 2, 5], {})


def test_sessions_of_a_store_without_the_verbs_of_moving_stay_where_they_are(kept):
    store = kept.ledger.store
    for verb in (kept.ledger.export, kept.ledger.hold, lambda: kept.move_to(MemoryStore())):
        with pytest.raises(StoreUnavailable, match="sessions of Kept can be neither copied nor moved"):
            verb()
    with Session("other", store=MemoryStore()) as other:
        other.register("n", int, initial=0)
        with pytest.raises(StoreUnavailable, match="sessions of Keeper can be neither copied nor moved"):
            store.restore("other", other.ledger.export())
        with pytest.raises(StoreUnavailable, match="sessions of Keeper can be neither copied nor moved"):
            other.move_to(store)
        assert other.set("n", 1).rev == 1
    assert kept.set("n", 1).rev == 1


def test_a_handle_that_was_closed_can_be_neither_copied_nor_held(store):
    session = Session("demo", store=store)
    session.close()
    for verb in (session.ledger.export, session.ledger.hold):
        with pytest.raises(SessionClosed, match="this handle of session 'demo' is closed"):
            verb()

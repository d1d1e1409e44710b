"""What one thread does in two steps, while another comes between them."""

import threading

import pytest

from dspex import Session, SessionClosed, watching
from dspex.changes import Watch
from dspex.stores import MemoryStore, ledger
from dspex.stores.ledger import MemoryLedger


@pytest.fixture
def elsewhere():
    """Call a function in another thread, and wait until it has returned."""

    def call(function, *arguments):
        thread = threading.Thread(target=function, args=arguments)
        thread.start()
        thread.join(30)
        assert not thread.is_alive()

    return call


# ---- what a fork gives back --------------------------------------------------------------------------


def test_what_a_fork_gives_back_is_of_one_revision(session, elsewhere):
    def names(fork):
        yield "a"
        elsewhere(fork.update, {"a": 2, "b": 2})
        yield "b"

    with session.fork({"a": 1, "b": 1}) as fork:
        fork.commit_to_parent(names(fork))
        assert (1, 1) == (session.get("a"), session.get("b"))
        fork.commit_to_parent()
        assert (2, 2) == (session.get("a"), session.get("b"))


def test_nobody_sees_half_of_what_a_fork_gives_back(session, busy, switching):
    seen = []
    session.watch("*", lambda change: seen.append((change.name, change.rev, change.value)), mode="all")
    with session.fork() as fork:
        count = iter(range(1, 10**9))

        def write():
            value = next(count)
            fork.update({"a": value, "b": value})

        with busy(write):
            for _ in range(500):
                fork.commit_to_parent(["a", "b"])
                snapshot = session.snapshot()
                assert snapshot["a"] == snapshot["b"]
    first = {(rev, value) for name, rev, value in seen if name == "a"}
    second = {(rev, value) for name, rev, value in seen if name == "b"}
    assert (first, 500) == (second, session.revision.rev)


# ---- what is made when somebody looks ----------------------------------------------------------------


@pytest.mark.parametrize(
    "look", [lambda s: s.revision.epoch, lambda s: s.set("n", 1).epoch], ids=["read", "set"]
)
def test_threads_that_look_at_a_new_fork_at_the_same_moment_see_one_epoch(
    session, look, together, monkeypatch
):
    made = []

    def slowly():
        made.append(threading.get_ident())
        threading.Event().wait(0.01)  # long enough for all the others to find that there is none
        return f"epoch {len(made)}"

    with session.fork() as fork:
        monkeypatch.setattr(ledger, "new_epoch", slowly)
        epochs = together(*[lambda: look(fork)] * 4)
        assert [fork.revision.epoch] * 4 == epochs
    assert len(made) == 1


def test_a_commit_is_not_written_over_by_the_first_read_of_a_name(session, elsewhere):
    """A fork keeps what it reads of its parent; between the look and the keeping somebody sets it."""

    class Parent(dict):
        def __getitem__(self, name):
            record = super().__getitem__(name)
            if armed.pop(name, False):
                elsewhere(fork.set, name, 9)
            return record

    armed = {"b": True}
    with session.fork({"a": 1}) as fork:
        layer = fork.ledger.records
        layer.base = Parent(layer.base)
        assert 9 == fork.get("b")
        assert (9, 1) == (fork.get("b"), fork.record("b").version)
        assert armed == {}


# ---- watches of a session that closes ----------------------------------------------------------------


@pytest.mark.parametrize("end", ["close", "delete"])
@pytest.mark.parametrize(
    "opening",
    [lambda s: s.watch("n", print), lambda s: s.changes("n"), lambda s: s.watch("*", print, mode="all")],
)
def test_a_watch_that_is_opened_while_its_session_closes_is_closed(
    session, monkeypatch, elsewhere, end, opening
):
    opened = []

    class Late(Watch):
        def __init__(self, *arguments, **settings):
            elsewhere(getattr(session, end))
            super().__init__(*arguments, **settings)
            opened.append(self)

    signals = [session.signal("n"), session.signal("*")]
    monkeypatch.setattr(watching, "Watch", Late)
    with pytest.raises(SessionClosed):
        opening(session)
    assert [True] == [watch.closed for watch in opened]
    assert [{}, {}] == [dict(signal.receivers) for signal in signals]


def test_the_first_watch_of_a_session_that_closes_leaves_nothing_in_its_ledger(store, monkeypatch, elsewhere):
    with Session("demo", store=store) as keeping, Session("demo", store=store) as session:
        keeping.register("n", int, initial=0)
        subscribe = MemoryLedger.subscribe

        def subscribed(own, sink):
            new = subscribe(own, sink)
            if sink is session:
                elsewhere(session.close)
            return new

        monkeypatch.setattr(MemoryLedger, "subscribe", subscribed)
        with pytest.raises(SessionClosed):
            session.watch("n", print)
        assert keeping.ledger._sink is None
        keeping.set("n", 1)


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_the_first_watch_of_a_session_that_moves_goes_along(monkeypatch, elsewhere, before):
    with Session("demo", store=MemoryStore()) as session:
        session.register("n", int, initial=0)
        subscribe, targets, seen = MemoryLedger.subscribe, [MemoryStore()], []

        def subscribed(own, sink):
            if before and targets:
                elsewhere(session.move_to, targets.pop())
            new = subscribe(own, sink)
            if targets:
                elsewhere(session.move_to, targets.pop())
            return new

        monkeypatch.setattr(MemoryLedger, "subscribe", subscribed)
        left = session.ledger
        session.watch("n", lambda change: seen.append(change.value))
        session.set("n", 1)
        assert ([1], None, True) == (seen, left._sink, session.ledger is not left)


def test_watches_that_race_with_the_end_of_their_session_are_closed_or_refused(together, switching):
    for _ in range(200):
        session = Session()
        session.register("n", int, initial=0)
        watches = []

        def open_some(session=session, watches=watches):
            for _ in range(5):
                try:
                    watches.append(session.watch("n", print))
                except SessionClosed:
                    return

        together(open_some, session.close, open_some)
        assert {True} >= {watch.closed for watch in watches}

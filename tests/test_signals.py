"""`session.signal(name)` and `Agent.temperature.changed`: blinker signals, as blinker users expect them."""

import gc

import blinker
import pytest

from dspex import Float, Program, Session, UnknownVariable, defprogram, defvariable
from dspex.changes import ChangeSignal


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)

    def forward(self):
        return self.temperature


class Child(Agent):
    pass


class Team(Program):
    first = defprogram(Agent)
    second = defprogram(Agent)


@pytest.fixture
def fresh():
    """Receivers that a test connects to a class must not outlive it."""
    before = dict(Agent.temperature.changed.receivers)
    yield
    for receiver in list(Agent.temperature.changed.receivers_for(blinker.ANY)):
        Agent.temperature.changed.disconnect(receiver)
    assert before == dict(Agent.temperature.changed.receivers)


def test_a_signal_is_a_blinker_signal_and_always_the_same(session):
    assert isinstance(session.signal("n"), blinker.Signal)
    assert session.signal("n") is session.signal("n")
    assert session.signal("n") is not session.signal("a")


def test_a_receiver_gets_the_session_and_the_change(session):
    seen = []

    def receiver(sender, *, change):
        seen.append((sender, change))

    session.signal("n").connect(receiver)
    change = session.set("n", 1)
    assert [(session, change)] == seen


def test_the_star_signal_hears_of_every_name(session):
    seen = []

    def receiver(sender, change):
        seen.append(change.name)

    session.signal("*").connect(receiver)
    session.update({"a": 1, "b": 2})
    assert seen == ["a", "b"]


def test_a_weakly_connected_receiver_goes_with_its_owner(session):
    seen = []

    class Listener:
        def on_change(self, sender, change):
            seen.append(change.new)

    listener = Listener()
    session.signal("n").connect(listener.on_change)
    session.set("n", 1)
    del listener
    gc.collect()
    session.set("n", 2)
    assert seen == [1]


def test_a_strongly_connected_receiver_stays(session):
    seen = []
    session.signal("n").connect(lambda _, change: seen.append(change.new), weak=False)
    gc.collect()
    session.set("n", 1)
    assert seen == [1]


def test_connect_via_and_connected_to_work(session):
    seen = []

    @session.signal("n").connect_via(session)
    def receiver(sender, change):
        seen.append(change.new)

    session.set("n", 1)
    with session.signal("n").connected_to(lambda _, change: seen.append(-change.new)):
        session.set("n", 2)
    session.set("n", 3)
    assert sorted(seen, key=lambda value: (abs(value), -value)) == [1, 2, -2, 3]


def test_a_disconnected_receiver_is_told_nothing(session):
    seen = []

    def receiver(sender, change):
        seen.append(change.new)

    session.signal("n").connect(receiver)
    session.set("n", 1)
    session.signal("n").disconnect(receiver)
    session.set("n", 2)
    assert seen == [1]


@pytest.mark.parametrize("name", ["n", "*"])
def test_a_muted_signal_tells_nobody_and_the_others_go_on(session, name):
    muted, other = [], []
    session.signal(name).connect(lambda _, change: muted.append(change.new), weak=False)
    session.watch(name, lambda change: muted.append(change.new))
    session.signal("*" if name == "n" else "n").connect(
        lambda _, change: other.append(change.new), weak=False
    )
    session.set("n", 1)
    with session.signal(name).muted():
        session.set("n", 2)
    session.set("n", 3)
    assert ([1, 1, 3, 3], [1, 2, 3]) == (muted, other)


def test_who_sends_the_signal_by_hand_reaches_its_receivers(session):
    seen = []
    session.signal("n").connect(lambda _, change: seen.append(change.new), weak=False)
    session.watch("n", lambda change: seen.append(change.new))
    session.signal("n").send(session, change=session.record("n"))
    assert seen == [0, 0]


def test_one_receiver_that_raises_does_not_stop_the_next(session, caplog):
    seen = []

    def broken(sender, change):
        raise RuntimeError("broken")

    def receiver(sender, change):
        seen.append(change.new)

    session.signal("n").connect(broken)
    session.signal("n").connect(receiver)
    session.set("n", 1)
    assert (seen, len(caplog.records)) == ([1], 1)


@pytest.mark.parametrize("senders", ["any any any", "one any one", "any one any", "one one any"])
def test_receivers_are_called_in_the_order_of_connection_whoever_they_listen_to(session, senders):
    seen, receivers = [], []
    for number, sender in enumerate(senders.split()):

        def receiver(_, change, number=number):
            seen.append(number)

        receivers.append(receiver)
        session.signal("n").connect(receiver, sender=session if sender == "one" else blinker.ANY)
    session.set("n", 1)
    assert seen == [0, 1, 2]


def test_watches_and_receivers_share_one_order(session):
    seen = []

    def receiver(_, change):
        seen.append("receiver")

    session.watch("n", lambda _: seen.append("watch"))
    session.signal("n").connect(receiver)
    session.watch("n", lambda _: seen.append("watch again"))
    session.set("n", 1)
    assert seen == ["watch", "receiver", "watch again"]


def test_a_session_that_subscribes_again_is_told_once(session):
    """As a thread does that was about to when another one's watcher was told of the first commit."""
    seen = []
    session.watch("temperature", lambda change: seen.append(change.new))
    session.set("temperature", 0.1)
    session._hear()
    session.set("temperature", 0.2)
    session.set("temperature", 0.3)
    assert [0.1, 0.2, 0.3] == seen
    assert session.ledger._sink is session._fanout


def test_a_closed_handle_is_told_nothing_more_whatever_it_was_told_before(store, session):
    with Session("demo", store=store) as goes:
        seen = []
        goes.watch("n", lambda change: seen.append(change.new))
        session.set("n", 1)
    session.set("n", 2)
    assert ([1], None) == (seen, session.ledger._sink)


def test_there_is_no_signal_of_an_unknown_name(session):
    with pytest.raises(UnknownVariable) as refused:
        session.signal("temprature")
    assert str(refused.value) == "session 'demo' has no variable 'temprature'. Did you mean 'temperature'?"


def test_changed_hears_of_every_session_in_which_the_program_is_bound(fresh):
    seen = []

    def receiver(session, change):
        seen.append((session, change.new))

    Agent.temperature.changed.connect(receiver)
    with Session() as one, Session() as two, Session() as unbound:
        Agent.bind(one)
        Agent.bind(two)
        unbound.register("temperature", float, initial=0.0)
        one.set("temperature", 0.1)
        two.set("temperature", 0.2)
        unbound.set("temperature", 0.3)
        assert [(one, 0.1), (two, 0.2)] == seen


def test_changed_can_listen_to_one_session(fresh):
    seen = []

    def receiver(session, change):
        seen.append(change.new)

    with Session() as one, Session() as two:
        Agent.temperature.changed.connect(receiver, sender=one)
        Agent.bind(one)
        Agent.bind(two)
        one.set("temperature", 0.1)
        two.set("temperature", 0.2)
    assert seen == [0.1]


def test_changed_works_when_connected_after_binding(fresh):
    seen = []
    with Session() as session:
        Agent.bind(session)
        session.set("temperature", 0.1)
        Agent.temperature.changed.connect(lambda _, change: seen.append(change.new), weak=False)
        session.set("temperature", 0.2)
    assert seen == [0.2]


def test_changed_is_told_once_per_commit_however_often_the_class_is_bound(fresh):
    seen = []
    Agent.temperature.changed.connect(lambda _, change: seen.append(change.new), weak=False)
    with Session() as session:
        bound = [Agent.bind(session), Agent.bind(session), Agent(session)]
        session.set("temperature", 0.1)
        assert (seen, len(bound)) == ([0.1], 3)


def test_changed_is_told_once_when_parent_and_child_are_bound(fresh):
    seen = []
    Agent.temperature.changed.connect(lambda _, change: seen.append(change.new), weak=False)
    with Session() as session:
        bound = [Agent.bind(session), Child.bind(session)]
        session.set("temperature", 0.1)
        assert (seen, len(bound)) == ([0.1], 2)


def test_changed_hears_of_the_program_inside_another(fresh):
    seen = []
    Agent.temperature.changed.connect(lambda _, change: seen.append((change.name, change.new)), weak=False)
    with Session() as session:
        team = Team.bind(session)
        session.set("first.temperature", 0.1)
        team.second.temperature = 0.2
    assert seen == [("first.temperature", 0.1), ("second.temperature", 0.2)]


def test_changed_of_a_class_is_one_signal():
    assert isinstance(Agent.temperature.changed, ChangeSignal)
    assert Agent.temperature.changed is Agent.temperature.changed
    assert Team.first.temperature.changed is Agent.temperature.changed

"""`debounce=`: one call when a burst is over, with its last value."""

import sys
import threading

import pytest

from dspex import InvalidValue


class Timers:
    """`threading.Timer` on a clock that the test turns."""

    def __init__(self):
        self.now = 0.0
        self.waiting = []

    def __call__(self, seconds, function):
        return Timer(self, seconds, function)

    def turn(self, seconds):
        end = self.now + seconds
        while due := sorted((one for one in self.waiting if one.at <= end), key=lambda one: one.at):
            self.now = due[0].at
            self.waiting.remove(due[0])
            due[0].function()
        self.now = end


class Timer:
    def __init__(self, clock, seconds, function):
        self.clock, self.seconds, self.function = clock, seconds, function

    def start(self):
        self.at = self.clock.now + self.seconds
        self.clock.waiting.append(self)

    def cancel(self):
        if self in self.clock.waiting:
            self.clock.waiting.remove(self)


@pytest.fixture
def clock(monkeypatch):
    timers = Timers()
    monkeypatch.setattr(threading, "Timer", timers)
    return timers


def test_a_burst_is_told_once_with_its_last_value(session, clock):
    seen = []
    session.watch("n", lambda change: seen.append(change.new), debounce=1.0)
    for value in range(1, 11):
        session.set("n", value)
    assert seen == []
    clock.turn(2.0)
    assert seen == [10]


def test_a_burst_is_not_over_while_changes_come(session, clock):
    seen = []
    session.watch("n", lambda change: seen.append((clock.now, change.new)), debounce=1.0)
    for value in range(10):
        session.set("n", value)
        clock.turn(0.5)
    assert seen == []
    clock.turn(2.0)
    ((when, value),) = seen
    assert value == 9
    assert 5.5 <= when <= 6.5


def test_every_burst_is_told(session, clock):
    seen = []
    session.watch("n", lambda change: seen.append(change.new), debounce=1.0)
    for value in (1, 2, 3):
        session.set("n", value)
        clock.turn(3.0)
    assert seen == [1, 2, 3]


def test_each_name_of_a_burst_is_told(session, clock):
    seen = {}
    session.watch("*", lambda change: seen.update({change.name: change.new}), debounce=1.0)
    session.set("a", 1)
    session.set("b", 2)
    session.set("a", 3)
    clock.turn(2.0)
    assert seen == {"a": 3, "b": 2}


def test_a_closed_watch_tells_no_burst(session, clock):
    seen = []
    watch = session.watch("n", seen.append, debounce=1.0)
    session.set("n", 1)
    watch.close()
    clock.turn(5.0)
    assert seen == []


def test_what_the_callback_raises_is_counted_and_logged(session, clock, caplog):
    watch = session.watch("n", lambda change: 1 // change.new, debounce=1.0)
    session.set("n", 0)
    clock.turn(2.0)
    assert (watch.errors, len(caplog.records)) == (1, 1)
    session.set("n", 1)
    clock.turn(2.0)
    assert watch.errors == 1


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), True])
def test_debounce_must_be_more_than_nothing(session, seconds):
    with pytest.raises(InvalidValue) as refused:
        session.watch("n", print, debounce=seconds)
    assert f"debounce must be more than 0 seconds (got {seconds})." == str(refused.value)
    assert list(session.signal("n").receivers_for(session)) == []


def test_a_real_burst_is_told_by_a_real_clock(session, eventually):
    seen = []
    session.watch("n", lambda change: seen.append(change.new), debounce=0.05)
    for value in range(100):
        session.set("n", value)
    eventually(lambda: seen and seen[-1] == 99, "the last value of the burst")


def test_calls_come_one_at_a_time(session, eventually):
    inside, together = [], []
    entered, go = threading.Event(), threading.Event()

    def slow(change):
        inside.append(change.new)
        together.append(len(inside))
        entered.set()
        assert go.wait(30)
        inside.pop()

    watch = session.watch("n", slow, debounce=0.01)
    session.set("n", 1)
    assert entered.wait(30)
    session.set("n", 2)
    # Only time can show that nobody calls meanwhile: ten times the wait of the burst.
    threading.Event().wait(0.1)
    go.set()
    eventually(lambda: len(together) == 2 and not inside, "both calls")
    watch.close()
    assert together == [1, 1]


def test_a_callback_that_ends_its_thread_is_called_again(session, clock, caplog):
    seen = []

    def leave(change):
        seen.append(change.new)
        sys.exit()

    watch = session.watch("n", leave, debounce=1.0)
    for value in (1, 2):
        session.set("n", value)
        clock.turn(2.0)
    assert ([1, 2], 2) == (seen, watch.errors)
    assert "SystemExit" in str(watch.last_error)

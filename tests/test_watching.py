"""Who watches is told: in order, after the commit, whatever the others do."""

import gc
import logging
import threading
import weakref

import pytest

from dspex import DspexError, LimitExceeded, Session, dispatch


def told(seen):
    """A callback that notes the new values."""
    return lambda change: seen.append(change.new)


def test_the_callback_has_run_when_set_returns(session):
    seen = []
    session.watch("n", seen.append)
    change = session.set("n", 1)
    assert [change] == seen
    assert (change.old, change.new, change.name) == (0, 1, "n")


def test_the_callback_sees_the_value_that_it_is_told(session):
    seen = []
    session.watch("n", lambda change: seen.append((change.new, session.get("n"), session.revision.rev)))
    session.set("n", 7)
    assert seen == [(7, 7, 1)]


@pytest.mark.parametrize("mode", ["latest", "all"])
def test_nothing_is_left_out_while_nobody_is_behind(session, mode):
    seen = []
    session.watch("n", told(seen), mode=mode)
    for value in range(1, 6):
        session.set("n", value)
    assert seen == [1, 2, 3, 4, 5]


def test_only_the_name_that_is_watched_is_told(session):
    seen = []
    session.watch("n", told(seen))
    session.update({"a": 1, "n": 2, "b": 3})
    session.set("a", 4)
    assert seen == [2]


def test_a_star_watches_every_name_also_those_to_come(session):
    seen = []
    session.watch("*", lambda change: seen.append((change.name, change.new)))
    session.update({"a": 1, "b": 2})
    session.register("later", int, initial=0)
    session.set("later", 3)
    assert seen == [("a", 1), ("b", 2), ("later", 3)]


def test_a_set_to_the_same_value_is_told_too(session):
    seen = []
    session.watch("n", told(seen))
    session.set("n", 0)
    assert seen == [0]


def test_callbacks_are_called_in_the_order_of_connection(session):
    seen = []
    for number in range(20):
        session.watch("n", lambda _, number=number: seen.append(number))
    session.set("n", 1)
    assert list(range(20)) == seen


def test_what_another_handle_sets_is_told(session, store):
    seen = []
    session.watch("n", told(seen))
    with Session("demo", store=store) as other:
        other.set("n", 1)
    assert seen == [1]


def test_a_closed_watch_is_told_nothing(session):
    seen = []
    watch = session.watch("n", told(seen))
    session.set("n", 1)
    watch.close()
    watch.close()
    session.set("n", 2)
    assert (seen, watch.closed) == ([1], True)


def test_leaving_the_block_closes_the_watch(session):
    seen = []
    with session.watch("n", told(seen)) as watch:
        session.set("n", 1)
    session.set("n", 2)
    assert (seen, watch.closed) == ([1], True)


def test_a_watch_shows_its_state(session):
    watch = session.watch("n", print, mode="all")
    assert repr(watch) == "<Watch 'n' all <built-in function print>>"
    watch.close()
    assert repr(watch) == "<Watch 'n' closed <built-in function print>>"


def test_lambdas_and_bound_methods_survive_garbage_collection(session):
    seen = []

    class Listener:
        def on_change(self, change):
            seen.append(change.new)

    session.watch("n", lambda change: seen.append(-change.new))
    session.watch("n", Listener().on_change)
    gc.collect()
    session.set("n", 1)
    assert seen == [-1, 1]


def test_a_closed_watch_lets_its_callback_go(session):
    class Listener:
        def on_change(self, change):
            pass

    listener = Listener()
    gone = weakref.ref(listener)
    watch = session.watch("n", listener.on_change)
    session.set("n", 1)
    watch.close()
    del listener, watch
    session.set("n", 2)
    gc.collect()
    assert gone() is None


# ---- what callbacks set ------------------------------------------------------------------------------


def test_what_a_callback_sets_is_told_after_it(session):
    order = []

    def first(change):
        order.append(("first begins", change.new))
        if change.new == 1:
            session.set("n", 2)
            order.append("set returned")
        order.append(("first ends", change.new))

    session.watch("n", first)
    session.watch("n", lambda change: order.append(("second", change.new)))
    session.set("n", 1)
    assert order == [
        ("first begins", 1),
        "set returned",
        ("first ends", 1),
        ("second", 1),
        ("first begins", 2),
        ("first ends", 2),
        ("second", 2),
    ]


def test_callbacks_may_set_what_others_watch(session):
    seen = []
    session.watch("a", lambda change: session.set("b", change.new + 1))
    session.watch("b", lambda change: session.set("n", change.new + 1))
    session.watch("n", told(seen))
    session.set("a", 1)
    assert seen == [3]


def test_a_callback_that_calls_itself_for_ever_is_stopped(session, caplog):
    watch = session.watch("n", lambda change: session.set("n", change.new + 1))
    session.set("n", 1)
    assert (session.get("n"), watch.errors) == (dispatch.NESTING + 1, 1)
    assert isinstance(watch.last_error, LimitExceeded)
    assert watch.last_error.message == "watchers that set what calls them are nested 16 deep: is this a loop?"
    assert len(caplog.records) == 1


def test_two_sessions_that_set_each_other_for_ever_are_stopped(session, caplog):
    with Session() as other:
        other.register("n", int, initial=0)
        watches = [
            session.watch("n", lambda change: other.set("n", change.new + 1)),
            other.watch("n", lambda change: session.set("n", change.new + 1)),
        ]
        session.set("n", 1)
        assert sum(watch.errors for watch in watches) == 1
        assert 16 <= session.get("n") <= 64


def test_a_long_life_of_short_chains_is_no_loop(session):
    session.watch("a", lambda change: session.set("b", change.new))
    for value in range(100):
        session.set("a", value)
    assert session.get("b") == 99


def test_the_writer_may_go_on_after_a_loop_was_stopped(session, caplog):
    with session.watch("n", lambda change: session.set("n", change.new + 1)):
        session.set("n", 1)
    seen = []
    session.watch("n", told(seen))
    session.set("n", 100)
    assert seen == [100]


# ---- callbacks that raise ----------------------------------------------------------------------------


def test_what_a_callback_raises_disturbs_nobody(session, caplog):
    seen = []

    def broken(_):
        raise RuntimeError("broken")

    watch = session.watch("n", broken)
    session.watch("n", told(seen))
    assert session.set("n", 1).new == 1
    session.set("n", 2)
    assert (seen, watch.errors, str(watch.last_error)) == ([1, 2], 2, "broken")


def test_what_a_callback_raises_is_logged_with_the_place(session, caplog):
    def broken(_):
        raise RuntimeError("broken")

    session.watch("n", broken)
    session.set("n", 1)
    (record,) = caplog.records
    assert (vars(record)["dspex.variable"], vars(record)["dspex.revision"]) == ("n", 1)
    assert (record.name, record.levelno) == ("dspex.watch", logging.ERROR)
    assert f"watcher {broken!r} failed on 'n' at revision 1" == record.getMessage()
    assert str(record.exc_info[1]) == "broken"


def test_errors_are_counted_where_they_happen(session, caplog):
    def broken(_):
        raise RuntimeError("broken")

    watches = [session.watch("n", broken), session.watch("*", broken), session.watch("n", broken)]
    session.set("n", 1)
    assert [watch.errors for watch in watches] == [1, 1, 1]


def test_a_callback_that_closes_its_own_watch_and_raises_is_logged(session, caplog):
    def last(_):
        watch.close()
        raise RuntimeError("last words")

    watch = session.watch("n", last)
    session.set("n", 1)
    session.set("n", 2)
    assert len(caplog.records) == 1


# ---- watches that come and go while being told -------------------------------------------------------


def test_a_callback_may_close_its_own_watch(session):
    seen = []

    def once(change):
        seen.append(change.new)
        watch.close()

    watch = session.watch("n", once)
    after = []
    session.watch("n", told(after))
    session.set("n", 1)
    session.set("n", 2)
    assert (seen, after) == ([1], [1, 2])


def test_a_callback_may_close_the_watches_of_others(session):
    before, after = [], []
    first = session.watch("n", told(before))
    session.watch("n", lambda _: (first.close(), last.close()))
    last = session.watch("n", told(after))
    session.set("n", 1)
    session.set("n", 2)
    assert before == [1]
    assert after in ([], [1])


def test_a_callback_may_open_watches_that_hear_of_later_changes_only(session):
    seen = []

    def open_another(change):
        if change.new == 1:
            session.watch("n", told(seen))

    session.watch("n", open_another)
    session.update({"n": 1, "a": 1})
    session.set("n", 2)
    assert seen == [2]


def test_a_watch_opened_between_a_commit_and_its_telling_hears_of_later_ones_only(session):
    seen = []

    def first(change):
        if change.new == 1:
            session.set("a", 5)
            session.watch("a", told(seen), mode="all")
            session.set("a", 6)

    session.watch("a", lambda _: None)
    session.watch("n", first)
    session.set("n", 1)
    assert seen == [6]


@pytest.mark.parametrize("handle", ["session", "other"])
def test_a_callback_may_close_its_session(session, store, handle):
    with Session("demo", store=store) as other:
        writer = {"session": session, "other": other}[handle]
        seen = []
        session.watch("a", lambda _: session.close())
        for name in ("b", "n"):
            session.watch(name, told(seen))
        receipt = writer.update({"a": 1, "b": 2, "n": 3})
        assert (len(receipt.changes), session.closed) == (3, True)
        assert {"a": 1, "b": 2, "n": 3}.items() <= dict(other.snapshot()).items()


def test_a_callback_that_closes_its_session_does_not_silence_other_handles(session, store):
    with Session("demo", store=store) as other:
        seen = []
        for name in ("a", "b", "n"):
            session.watch(name, lambda _: session.close())
            other.watch(name, told(seen))
        other.update({"a": 1, "b": 2, "n": 3})
        assert seen == [1, 2, 3]


# ---- watchers that are slow --------------------------------------------------------------------------


class Blocking:
    """A callback that waits, the first time, until it is let go; and notes what it is told."""

    def __init__(self):
        self.seen = []
        self.entered = threading.Event()
        self.go = threading.Event()

    def __call__(self, change):
        self.seen.append(change.new)
        self.entered.set()
        assert self.go.wait(30)


@pytest.fixture
def blocked(session):
    """Make a thread tell a change to a callback that blocks; wait until it does."""
    threads, callbacks = [], []

    def start(mode):
        callback = Blocking()
        session.watch("n", callback, mode=mode)
        thread = threading.Thread(target=session.set, args=("n", 1))
        thread.start()
        threads.append(thread)
        callbacks.append(callback)
        assert callback.entered.wait(30)

        def finish():
            callback.go.set()
            thread.join(30)
            assert not thread.is_alive()

        callback.finish = finish
        return callback

    yield start
    for callback in callbacks:
        callback.finish()


def test_a_slow_callback_does_not_block_other_writers(session, blocked):
    callback = blocked("latest")
    session.set("n", 2)
    session.set("a", 3)
    session.update({"n": 4, "b": 5})
    assert ((session.get("n"), session.get("a"), session.get("b")), callback.seen) == ((4, 3, 5), [1])


def test_who_falls_behind_in_mode_latest_is_told_the_newest_change(session, blocked):
    callback = blocked("latest")
    for value in range(2, 100):
        session.set("n", value)
    callback.finish()
    assert callback.seen == [1, 99]


@pytest.mark.parametrize("burst", [1, 2, 1_023, 1_024, 1_025, 5_000])
def test_the_tail_of_a_burst_is_never_lost(session, blocked, burst):
    callback = blocked("latest")
    tails = {"a": [], "b": []}
    for name, tail in tails.items():
        session.watch(name, told(tail))
    session.set("a", -1)
    for value in range(burst):
        session.set("n", value)
    session.set("b", -2)
    callback.finish()
    assert (burst - 1, -1, -2) == (callback.seen[-1], tails["a"][-1], tails["b"][-1])


@pytest.mark.parametrize("burst", [10, 1_100, 5_000])
def test_who_falls_behind_in_mode_all_is_told_every_change(session, blocked, burst):
    callback = blocked("all")
    beside = []
    session.watch("n", told(beside))
    for value in range(2, burst):
        session.set("n", value)
    callback.finish()
    assert list(range(1, burst)) == callback.seen
    assert beside[-1] == burst - 1


def test_who_falls_too_far_behind_in_mode_all_is_closed(session, blocked, monkeypatch, caplog):
    monkeypatch.setattr(dispatch, "LOSSLESS_QUEUE", 3_000)
    callback = blocked("all")
    beside = []
    lossy = session.watch("n", told(beside))
    (watch,) = [one for one in session.signal("n").receivers_for(session) if one.callback is callback]
    for value in range(2, 10_000):
        session.set("n", value)
    assert (watch.closed, lossy.closed) == (True, False)
    assert isinstance(watch.last_error, DspexError)
    assert watch.last_error.message == (
        "the watcher of 'n' fell 3000 changes behind and was closed. Watch with mode='latest', or do "
        "the slow "
        "part elsewhere."
    )
    callback.finish()
    assert (callback.seen, beside[-1]) == ([1], 9_999)
    assert len(caplog.records) == 1


def test_the_queue_of_a_slow_watcher_is_bounded(session, blocked):
    blocked("latest")
    for value in range(10_000):
        session.set("n", value)
    assert len(session._fanout.queue) <= 2 * dispatch.QUEUE

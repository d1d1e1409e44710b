"""Sessions under many threads at once."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from dspex import (
    Change,
    Float,
    Integer,
    ModuleChoice,
    Program,
    Session,
    VersionConflict,
    defvariable,
    program,
)
from dspex.dispatch import Fanout
from dspex.stores import MemoryStore

pytestmark = pytest.mark.timeout(60)


class Pair(Program):
    a = defvariable(Integer(), initial=0)
    b = defvariable(Integer(), initial=0)

    def forward(self):
        return self.a, self.b


class Chooser(Program):
    step = defvariable(ModuleChoice("first", "second", "third"), initial="first")


class Chosen(Program):
    step = defvariable(ModuleChoice("first", "second", "third"), initial="first")

    def init(self):
        for name in ("first", "second", "third"):
            self.modules[name] = lambda: 1


def test_8_writers_and_8_watchers_of_100_000_commits_lose_nothing_and_keep_the_order(session, together):
    writers, commits = 8, 12_500
    lossless = [[] for _ in range(4)]
    latest = [[] for _ in range(4)]
    for seen in lossless:
        session.watch("*", lambda change, seen=seen: seen.append(change), mode="all")
    for seen in latest:
        session.watch("*", lambda change, seen=seen: seen.append(change))
    names = ("n", "a")

    def write(number):
        for step in range(commits):
            session.set(names[step % 2], number * commits + step)

    together(*(lambda number=number: write(number) for number in range(writers)))
    total = writers * commits
    assert total == session.revision.rev
    for seen in lossless:
        assert list(range(1, total + 1)) == [change.rev for change in seen]
        for number in range(writers):
            mine = range(number * commits, (number + 1) * commits)
            assert list(mine) == [change.new for change in seen if change.new in mine]
        for name in names:
            told = [change for change in seen if change.name == name]
            assert [0, *(change.new for change in told[:-1])] == [change.old for change in told]
    for seen in latest:
        revisions = [change.rev for change in seen]
        assert sorted(set(revisions)) == revisions
        for name in names:
            last = [change for change in seen if change.name == name][-1]
            assert session.record(name) == last


@pytest.mark.parametrize("mode", ["latest", "all"])
def test_a_slow_watcher_beside_fast_writers_is_told_in_order(session, together, switching, mode):
    """The queue is shortened while somebody reads from it, again and again."""
    writers, commits = 4, 4_000
    seen = []
    pause = threading.Event()

    def slow(change):
        seen.append(change)
        if len(seen) % 64 == 0:
            pause.wait(0.0001)

    session.watch("n", slow, mode=mode)
    session.watch("a", lambda _: None)

    def write():
        for step in range(commits):
            session.set("a", step)
            session.set("n", step)

    together(*[write] * writers)
    revisions = [change.rev for change in seen]
    assert sorted(set(revisions)) == revisions
    assert session.record("n") == seen[-1]
    if mode == "all":
        assert list(range(1, writers * commits + 1)) == [change.version for change in seen]


def test_a_change_that_comes_while_the_dispatcher_stops_is_told(session):
    """The queue was empty, the turn is not given back yet: who commits now relies on being looked after."""

    class Stopping(Fanout):
        __slots__ = ()

        def __setattr__(self, name, value):
            if name == "_free" and session.get("n") == 1:
                writer = threading.Thread(target=session.set, args=("n", 2))
                writer.start()
                writer.join(30)
            super().__setattr__(name, value)

    seen = []
    session.watch("n", lambda change: seen.append(change.new))
    session.set("a", 1)
    session._fanout.__class__ = Stopping
    session.set("n", 1)
    assert seen == [1, 2]


def test_32_threads_swap_1000_times_each_and_lose_none(session, together):
    def count():
        for _ in range(1_000):
            session.swap("n", lambda n: n + 1)

    together(*[count] * 32)
    assert (session.get("n"), session.record("n").version) == (32_000, 32_000)


def test_of_writers_that_expect_the_same_version_one_wins(session, together, switching):
    def compete(version):
        try:
            session.set("n", version, expect=version)
        except VersionConflict:
            return 0
        return 1

    for version in range(200):
        assert sum(together(*[lambda version=version: compete(version)] * 4)) == 1


def test_a_snapshot_is_never_torn(session, busy, switching):
    count = iter(range(10**9))

    def write():
        value = next(count)
        session.update({"a": value, "b": -value})

    with busy(write):
        for _ in range(5_000):
            snapshot = session.snapshot()
            assert snapshot["a"] + snapshot["b"] == 0
            assert snapshot.records["a"].rev == snapshot.records["b"].rev == snapshot.revision.rev


def test_a_watcher_never_sees_half_a_commit(session, together):
    torn = []

    def on_change(change):
        if change.name == "b":
            snapshot = session.snapshot()
            if snapshot["a"] != snapshot["b"]:
                torn.append(snapshot)

    session.watch("*", on_change, mode="all")

    def write(first):
        for value in range(first, 2_000, 2):
            session.update({"a": value, "b": value})

    together(lambda: write(0), lambda: write(1))
    assert torn == []


def test_who_has_set_reads_nothing_older(session, busy):
    def write():
        session.set("a", 1)

    with busy(write, write):
        for value in range(5_000):
            session.set("n", value)
            assert value == session.get("n")


def test_programs_bound_while_others_set_end_with_the_newest_values(session, together, switching):
    programs = [[] for _ in range(6)]

    def bind(mine):
        mine.extend(Pair.bind(session) for _ in range(100))

    def write():
        for value in range(2_000):
            session.update({"a": value, "b": value})

    together(write, *(lambda mine=mine: bind(mine) for mine in programs))
    bound = [program for mine in programs for program in mine]
    assert {(1_999, 1_999)} == {(program.a, program.b) for program in bound}


def test_programs_bound_at_the_same_moment_are_all_kept_up_to_date(together, switching):
    for turn in range(100):
        with Session() as session:
            programs = together(*[lambda session=session: Pair.bind(session)] * 8)
            session.set("a", turn + 1)
            assert [turn + 1] * 8 == [program.a for program in programs]


def test_a_commit_in_the_middle_of_binding_is_not_written_over(session, together):
    class Records(dict):
        """Lets another thread commit between the moment a value is read and the moment it is stored."""

        def __getitem__(self, name):
            record = super().__getitem__(name)
            if armed.pop("now", False):
                together(lambda: session.set("a", 9))
            return record

    armed = {}
    session.set("a", 1)
    session.set("a", 2)
    session.ledger.records = Records(session.ledger.records)
    armed["now"] = True
    assert Pair.bind(session).a == 9


def test_init_runs_once_however_many_threads_start_a_run(together, switching):
    made = []

    class Slow(Program):
        n = defvariable(int, initial=1)

        def init(self):
            made.append(self)
            threading.Event().wait(0.01)
            self.ready = True

        def forward(self):
            return self.ready, self.n

    for turn in range(20):
        with Session() as session:
            results = together(*[lambda session=session: Slow.run(session=session)] * 8)
            assert ([(True, 1)] * 8, turn + 1) == (results, len(made))


def test_a_module_is_chosen_by_one_thread_while_another_binds(together, switching):
    """A push looks for modules under the store's lock, a first bind commits under the session's: no "
    "deadlock."""
    for _ in range(100):
        with Session() as session:
            live = Chooser.bind(session)
            live.step  # noqa: B018  looked at, as a run would

            class Fresh(Chosen):
                pass

            def write(session=session):
                for value in ("second", "third", "first"):
                    session.set("step", value)

            def run(session=session, program=Fresh):
                return program.bind(session).step()

            def attach(session=session, program=Fresh):
                return session.attachment(program, lambda: program.bind(session)).step

            together(write, attach, run, write, deadline=10)


def test_everything_rare_is_made_once(together, switching):
    for _ in range(300):
        with Session() as session:
            session.register("n", int, initial=0)
            signals = together(*[lambda session=session: session.signal("n")] * 4)
            assert len({id(signal) for signal in signals}) == 1


def test_no_watcher_of_a_fresh_session_is_lost(together, switching):
    for _ in range(300):
        with Session() as session:
            session.register("n", int, initial=0)
            seen = []
            together(*[lambda session=session, seen=seen: session.watch("n", seen.append)] * 4)
            session.set("n", 1)
            assert len(seen) == 4


def test_the_first_to_watch_while_others_set_miss_nothing_and_hear_nothing_twice(together, switching):
    for _ in range(200):
        with Session() as session:
            Pair.bind(session)
            seen = [[], []]

            def write(session=session):
                for value in range(20):
                    session.set("a", value)

            watching = [
                lambda session=session, told=told: session.watch("a", told.append, mode="all")
                for told in seen
            ]
            together(write, *watching)
            session.set("a", -1)
            for told in seen:
                versions = [change.version for change in told]
                assert list(range(versions[0], 22)) == versions


def test_watchers_may_come_and_go_while_others_set(session, busy, switching):
    def come_and_go():
        with session.watch("n", lambda _: None), session.watch("*", lambda _: None, mode="all"):
            pass

    seen = []
    session.watch("n", lambda change: seen.append(change.new), mode="all")
    with busy(come_and_go, come_and_go):
        for value in range(5_000):
            session.set("n", value)
    assert list(range(5_000)) == seen


def test_names_may_be_registered_while_others_set(session, together, switching):
    def register():
        for number in range(300):
            session.register(f"v{number}", int, initial=number)

    def write():
        for value in range(3_000):
            session.set("n", value)
            session.update({"a": value, "b": value})

    together(register, register, write)
    assert [*range(300)] == [session.get(f"v{number}") for number in range(300)]
    assert (session.get("n"), session.get("a"), session.revision.rev) == (2_999, 2_999, 6_000)


def test_a_handle_closed_by_two_threads_is_closed_once(together, switching):
    for _ in range(300):
        store = MemoryStore()
        mine, other = Session("s", store=store), Session("s", store=store)
        together(mine.close, mine.close)
        assert [info.id for info in store.sessions()] == ["s"]
        other.close()
        assert list(store.sessions()) == []


def test_handles_may_be_opened_and_closed_at_the_same_time(store, together, switching):
    def open_and_close():
        for _ in range(300):
            with Session("shared", store=store) as session:
                session.register("n", int, initial=0)
                session.swap("n", lambda n: n + 1)

    together(*[open_and_close] * 4)
    assert list(store.sessions()) == []


def test_reads_are_right_while_others_write(session, busy):
    session.register("word", Float(), initial=0.0)
    count = iter(range(10**9))
    with busy(lambda: session.set("n", next(count))):
        last = -1
        for _ in range(20_000):
            value = session.get("n")
            assert value >= last
            last = value


def test_history_and_snapshots_agree_while_others_write(session, busy, switching):
    with busy(lambda: session.swap("n", lambda n: n + 1)):
        for _ in range(300):
            before = session.snapshot()
            versions = [change.version for change in session.history("n")]
            after = session.snapshot()
            assert list(range(versions[0], versions[-1] + 1)) == versions if versions else True
            if versions:
                assert before.records["n"].version <= versions[-1] <= after.records["n"].version


def test_a_change_made_in_a_pool_is_told_to_the_watcher(session):
    seen = []
    session.watch("n", seen.append, mode="all")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda value: session.set("n", value), range(1_000)))
    assert len(seen) == 1_000
    assert all(isinstance(change, Change) for change in seen)
    assert set(range(1_000)) == {change.new for change in seen}


def test_the_switch_interval_is_as_it_was():
    assert sys.getswitchinterval() >= 1e-4


def test_a_module_can_be_pushed_between_attaching_and_filling_a_program(monkeypatch):
    """A push runs under the store's lock: it must not wait for the lock that is held around a first run."""
    fill, in_time = program._fill, []

    def set_by_another_thread_first(*arguments):
        setting = threading.Thread(target=session.set, args=("step", "first"), daemon=True)
        setting.start()
        setting.join(10)
        in_time.append(not setting.is_alive())
        fill(*arguments)

    with Session() as session:
        session.register("step", ModuleChoice("first", "second", "third"), initial="second")
        monkeypatch.setattr(program, "_fill", set_by_another_thread_first)
        bound = session.attachment(Chosen, lambda: Chosen.bind(session))
        assert all(in_time)
        assert bound.step() == 1

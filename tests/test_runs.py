"""Running programs: live and pinned, with a limit, with a record, with errors."""

import asyncio
import threading
import time

import pytest

from dspex import (
    DeadlineExceeded,
    Float,
    Integer,
    InvalidCall,
    InvalidDeclaration,
    InvalidValue,
    Program,
    Run,
    Secret,
    Session,
    SessionClosed,
    VariableConflict,
    defvariable,
)


class Pair(Program):
    a = defvariable(Integer(), initial=0)
    b = defvariable(Integer(), initial=0)

    def forward(self, work=None):
        before = self.a, self.b
        if work is not None:
            work(self)
        return (*before, self.a, self.b)


class Echo(Program):
    temperature = defvariable(Float(), initial=0.5)

    def forward(self, *inputs, **named):
        return self.temperature, inputs, named


class Failing(Program):
    temperature = defvariable(Float(), initial=0.5)

    def forward(self, error):
        raise error


@pytest.fixture
def session():
    with Session("runs", store="memory://runs") as opened:
        yield opened


def test_run_gives_what_forward_returned(session):
    assert Echo.run(1, 2, x=3, session=session) == (0.5, (1, 2), {"x": 3})


def test_every_way_to_run_is_the_same(session):
    echo = Echo.bind(session)
    assert (
        (0.5, (1,), {"x": 2})
        == echo(1, x=2)
        == echo.run(1, x=2)
        == Echo(session)(1, x=2)
        == echo.record(1, x=2).output
        == Echo.record(1, x=2, session=session).output
    )


def test_a_run_without_a_session_has_the_initial_values():
    seen = []

    class Private(Echo):
        def forward(self):
            seen.append(self.session)
            self.temperature = 0.9
            return self.temperature

    assert [Private.run(), Private.run()] == [0.9, 0.9]
    assert seen[0] is not seen[1]
    assert [session.closed for session in seen] == [True, True]


def test_a_live_run_sees_what_is_set_meanwhile(session):
    assert Pair.run(lambda _: session.update({"a": 1, "b": 2}), session=session) == (0, 0, 1, 2)


def test_a_pinned_run_does_not(session):
    assert Pair.run(lambda _: session.update({"a": 1, "b": 2}), session=session, pin=True) == (0, 0, 0, 0)
    assert Pair.run(session=session, pin=True) == (1, 2, 1, 2)


def test_pinned_reads_are_never_mixed(session, busy, switching):
    Pair.bind(session)
    count = iter(range(10**9))

    def write():
        value = next(count)
        session.update({"a": value, "b": value})

    with busy(write):
        for _ in range(2_000):
            run = Pair.record(lambda _: time.sleep(0), session=session, pin=True)
            assert len(set(run.output)) == 1
            assert run.output[0] == run.values["a"] == run.values["b"]
            assert (False, run.first) == (run.mixed, run.last)


def test_the_live_program_lives_on_beside_pinned_runs(session, together):
    live = session.attachment(Pair, lambda: Pair.bind(session))
    inside, go = threading.Event(), threading.Event()

    def wait(_):
        inside.set()
        assert go.wait(30)

    def write():
        assert inside.wait(30)
        session.update({"a": 1, "b": 2})
        seen = live.a, live.b
        go.set()
        return seen

    assert together(lambda: Pair.run(wait, session=session, pin=True), write) == [(0, 0, 0, 0), (1, 2)]


def test_a_record_tells_what_was_in_effect(session):
    session.set("a", 5) if "a" in session.variables else Pair.bind(session)
    session.set("a", 6)
    first = session.revision
    run = Pair.record(lambda _: session.set("b", 1), session=session)
    assert isinstance(run, Run)
    assert ("Pair", "runs", (6, 0, 6, 1), first, session.revision, False, {"a": 6, "b": 0}) == (
        run.program,
        run.session,
        run.output,
        run.first,
        run.last,
        run.pinned,
        run.values,
    )
    assert 0 <= run.seconds < 30
    assert run.mixed


def test_a_run_during_which_nothing_was_set_is_not_mixed(session):
    run = Pair.record(session=session)
    assert (False, False, run.first) == (run.mixed, run.pinned, run.last)


def test_a_pinned_record_names_one_revision(session):
    run = Pair.record(lambda _: session.set("b", 1), session=session, pin=True)
    assert (True, False, run.first) == (run.pinned, run.mixed, run.last)
    assert session.revision != run.last


def test_a_run_does_not_show_secrets(session):
    class Caller(Program):
        key = defvariable(Secret(), initial="hunter22")

        def forward(self):
            return len(self.key)

    run = Caller.record(session=session)
    assert (run.output, run.values["key"]) == (8, "hunter22")
    assert "hunter22" not in repr(run)


# ---- what forward raises -----------------------------------------------------------------------------


def notes(error):
    return getattr(error, "__notes__", [])


def test_what_forward_raises_is_raised_untouched_with_a_note(session):
    error = ValueError("of forward", 1)
    with pytest.raises(ValueError) as raised:
        Failing.run(error, session=session)
    assert raised.value is error
    assert error.args == ("of forward", 1)
    assert [f"in Failing on session 'runs' at revision {session.revision}"] == notes(error)


def test_the_note_of_a_pinned_run_names_its_pin(session):
    Failing.bind(session)
    first = session.revision

    class Setting(Failing):
        def forward(self, error):
            self.session.set("temperature", 0.1)
            raise error

    error = KeyError("x")
    with pytest.raises(KeyError):
        Setting.run(error, session=session, pin=True)
    assert [f"in Setting on session 'runs' at revision {first}"] == notes(error)


@pytest.mark.parametrize("how", ["run", "record", "call", "arun", "arecord", "timeout"])
def test_every_way_to_run_raises_it(session, how):
    error = ZeroDivisionError("of forward")
    failing = Failing.bind(session)
    ways = {
        "run": lambda: failing.run(error),
        "record": lambda: failing.record(error),
        "call": lambda: failing(error),
        "arun": lambda: asyncio.run(failing.arun(error)),
        "arecord": lambda: asyncio.run(failing.arecord(error)),
        "timeout": lambda: failing.run(error, timeout=30),
    }
    with pytest.raises(ZeroDivisionError) as raised:
        ways[how]()
    assert raised.value is error
    assert len(notes(error)) == 1


def test_a_timeout_that_forward_raises_is_its_own(session):
    error = TimeoutError("of forward")
    with pytest.raises(TimeoutError) as raised:
        Failing.run(error, session=session, timeout=30)
    assert raised.value is error


def test_an_error_does_not_end_the_program(session):
    failing = Failing.bind(session)
    with pytest.raises(ValueError):
        failing(ValueError())
    session.set("temperature", 0.1)
    assert failing.temperature == 0.1


def test_a_private_session_is_closed_when_forward_raises():
    seen = []

    class Private(Echo):
        def forward(self):
            seen.append(self.session)
            raise ValueError

    with pytest.raises(ValueError):
        Private.run()
    assert seen[0].closed


# ---- limits ------------------------------------------------------------------------------------------


def test_a_run_within_its_time_returns(session):
    assert Echo.run(session=session, timeout=30)[0] == 0.5


def test_a_run_that_takes_too_long_is_given_up(session, eventually):
    go, ended = threading.Event(), threading.Event()

    class Slow(Program):
        def forward(self):
            assert go.wait(30)
            ended.set()

    with pytest.raises(DeadlineExceeded) as late:
        Slow.run(session=session, timeout=0.02)
    assert str(late.value) == (
        "Slow on session 'runs' took longer than 0.02 s. A thread cannot be ended from outside: what "
        "it was doing "
        "goes on in the background."
    )
    assert (late.value.program, late.value.session, late.value.seconds) == ("Slow", "runs", 0.02)
    assert isinstance(late.value, TimeoutError)
    go.set()
    assert ended.wait(30)


def test_a_run_with_a_limit_has_the_context_of_its_caller(session):
    class Setting(Pair):
        def forward(self):
            self.a = 1

    program = Setting.bind(session)
    with session.claim(["a"], owner="tuner", ttl=60):
        program.run(timeout=30)
    assert session.get("a") == 1


# ---- what cannot run ---------------------------------------------------------------------------------


def test_a_program_without_forward_cannot_run(session):
    class Empty(Program):
        pass

    with pytest.raises(InvalidDeclaration) as refused:
        Empty.run(session=session)
    assert str(refused.value) == "Empty cannot run: define forward(self, …) or async aforward(self, …)."


def test_a_bound_program_runs_on_its_own_session_only(session):
    echo = Echo.bind(session)
    with Session() as other:
        with pytest.raises(VariableConflict) as refused:
            echo.run(session=other)
        assert f"<Echo bound to session 'runs'> cannot run on session '{other.id}'; call Echo.run." == str(
            refused.value
        )
    assert echo.run(session=session)[0] == 0.5


@pytest.mark.parametrize("of", [Echo, lambda: Echo.bind(Session())])
@pytest.mark.parametrize("how", ["run", "record", "arun", "arecord"])
def test_a_session_among_the_inputs_is_refused(session, of, how):
    target = of if isinstance(of, type) else of()
    with pytest.raises(InvalidCall) as refused:
        result = getattr(target, how)("x", session)
        asyncio.run(result)
    assert str(refused.value) == "Echo got a session among its inputs. Give it by name: session=…."
    assert "temperature" not in session.variables


def test_a_session_may_be_an_input_of_a_program_that_has_one(session):
    with Session() as other:
        assert Echo.run(other, session=session)[1] == (other,)
        assert Echo.run(other=other)[2] == {"other": other}


@pytest.mark.parametrize("pin", [False, True])
def test_a_closed_session_runs_nothing(pin):
    session = Session()
    session.close()
    with pytest.raises(SessionClosed):
        Echo.run(session=session, pin=pin)


def test_a_class_is_bound_once_per_session(session):
    programs = []

    class Noting(Program):
        def forward(self):
            programs.append(self)

    Noting.run(session=session)
    Noting.run(session=session)
    with session.fork() as fork:
        Noting.run(session=fork)
    assert programs[0] is programs[1]
    assert programs[0] is not programs[2]


UNWAITABLE = [
    ("a", "0 or more"),
    (True, "0 or more"),
    (float("nan"), "0 or more"),
    (-1, "0 or more"),
    (float("inf"), f"at most {threading.TIMEOUT_MAX:.0f}"),
    (1e300, f"at most {threading.TIMEOUT_MAX:.0f}"),
]


@pytest.mark.parametrize(("timeout", "expected"), UNWAITABLE)
@pytest.mark.parametrize("how", ["run", "record", "stream", "arun", "arecord", "astream"])
def test_a_time_that_nobody_can_wait_is_refused_before_forward_begins(session, how, timeout, expected):
    begun = []

    class Noted(Program):
        def forward(self):
            begun.append(self)

    async def awaited():
        if how == "astream":
            return [piece async for piece in Noted.astream(session=session, timeout=timeout)]
        return await getattr(Noted, how)(session=session, timeout=timeout)

    with pytest.raises(InvalidValue) as refused:
        asyncio.run(awaited()) if how[0] == "a" else getattr(Noted, how)(session=session, timeout=timeout)
    assert str(refused.value) == f"timeout must be {expected} seconds (got {timeout!r})."
    assert begun == []


def test_the_longest_time_can_be_waited(session):
    assert Echo.run(session=session, timeout=threading.TIMEOUT_MAX)[0] == 0.5

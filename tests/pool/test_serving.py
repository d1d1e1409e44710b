"""Programs that run beside the state service."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

pytest.importorskip("grpc")

from dspex import (
    DeadlineExceeded,
    InvalidAssignment,
    InvalidValue,
    LimitExceeded,
    PermissionDenied,
    ProgramError,
    Session,
    StoreUnavailable,
    UnknownProgram,
)
from dspex.pool import serving
from dspex.pool.serving import Programs, RemotePrograms
from dspex.pool.values import PLAIN
from dspex.rpc import Server
from dspex.rpc._generated import programs_pb2 as pb
from dspex.rpc.auth import new_token
from dspex.rpc.limits import Limits
from dspex.stores import MemoryStore
from dspex.testing import pool_programs as those

NAMED = "dspex.testing.pool_programs"


@pytest.fixture
def served(pool):
    """A server with two workers, and how to start it with tokens."""
    made = []

    def start(tokens=(), **settings):
        store = MemoryStore()
        programs = Programs(store, pool())
        server = Server(store, tokens=tokens, more=(programs,), **settings).start()
        made.append((server, programs))
        return server.url

    yield start
    for server, programs in made:
        server.stop(1)
        programs.close()


def test_a_client_runs_a_program_in_a_session_of_the_server(served):
    url = served()
    with Session("prod", store=url) as session, RemotePrograms(url) as there:
        assert there.run(those.Knobs, session="prod") == (0.7, 0)
        session.set("temperature", 0.25)
        assert there.run(f"{NAMED}:Knobs", session="prod") == (0.25, 0)
        assert there.run(those.Echo, (1,), a=b"x") == [[(1,)], {"a": b"x"}]


def test_what_a_run_sets_is_there_when_it_returns_also_where_the_session_is_a_servers(pool, served):
    workers = pool(workers=1)
    with Session("far", store=served()) as session:
        for value in range(50):
            assert those.Setting.run(float(value), session=session, pool=workers) == value
            assert session.get("best") == value


def test_a_session_that_was_deleted_is_another_one_when_it_is_run_again(served):
    url = served()
    with RemotePrograms(url) as there:
        for temperature in (0.25, 0.5):
            assert there.run(those.Knobs, session="prod") == (0.7, 0)
            with Session("prod", store=url) as session:
                session.set("temperature", temperature)
                assert there.run(those.Knobs, session="prod") == (temperature, 0)
                session.delete()


def test_a_client_streams(served):
    with RemotePrograms(served()) as there:
        assert list(there.stream(those.Pieces, 100)) == list(range(100))
        assert list(there.stream(those.Echo, 1)) == [[[1], {}]]


def test_a_client_that_leaves_ends_the_program(served, tmp_path, eventually):
    with RemotePrograms(served()) as there:
        pieces = there.stream(those.Pieces, 10**9, str(tmp_path / "given"))
        assert next(pieces) == 0
        pieces.close()
        eventually((tmp_path / "given").exists, "the program was left")


def test_errors_come_to_the_client(served):
    url = served()
    with RemotePrograms(url) as there:
        with pytest.raises(ValueError, match="no such thing"):
            there.run(those.Failing, "builtin")
        with pytest.raises(
            ProgramError, match="Quirky: code 7"
        ):  # a server does not say what is imported here
            there.run(those.Failing, "quirky")
        with pytest.raises(UnknownProgram, match="Did you mean"):
            there.run(f"{NAMED}:Knob")
        with pytest.raises(DeadlineExceeded):
            there.run(those.Slow, 60, timeout=0.2)
        with Session("s", store=url) as session:
            those.Knobs.bind(session)
            with pytest.raises(InvalidValue) as raised:
                there.run(those.Failing, "variable", session="s")
            assert raised.value.name == "temperature"


@pytest.mark.parametrize("timeout", ["a", float("nan"), -1])
def test_a_client_is_told_what_is_no_time_in_the_words_of_a_run_here(served, timeout):
    with RemotePrograms(served()) as there:
        for call in (there.run, lambda *args, **named: list(there.stream(*args, **named)), those.Echo.run):
            with pytest.raises(InvalidValue) as refused:
                call(those.Echo, timeout=timeout)
            assert str(refused.value) == f"timeout must be 0 or more seconds (got {timeout!r})."


def test_a_run_needs_the_right_to_set(served):
    may, token = new_token("prod-*=set,watch")
    reads, other = new_token("prod-*=read,watch")
    url = served([token, other])
    with RemotePrograms(url, token=may) as there:
        assert there.run(those.Knobs, session="prod-1") == (0.7, 0)
        for session in ("staging", ""):
            with pytest.raises(PermissionDenied):
                there.run(those.Knobs, session=session)
    for token in (reads, None):
        with RemotePrograms(url, token=token) as there, pytest.raises(PermissionDenied):
            there.run(those.Knobs, session="prod-1")


def test_what_is_run_by_name_comes_without_its_classes(served):
    with RemotePrograms(served()) as there:
        given = those.Answer("a", those.Mood.GOOD, (0.5,))
        assert there.run(those.Shaped, given) == [given, attrs.evolve(given, text="A")]
        as_mapping = {"text": "a", "mood": "GOOD", "scores": (0.5,)}
        assert there.run(f"{NAMED}:Moody") == as_mapping


def test_a_run_may_be_pinned(served):
    with RemotePrograms(served()) as there:
        assert there.run(those.Setting, 0.5, session="s") == 0.5
        with pytest.raises(InvalidAssignment, match="pinned at revision"):
            there.run(those.Setting, 0.25, session="s", pin=True)


def test_runs_make_no_more_sessions_than_the_server_has(served):
    url = served(limits=Limits(sessions=1))
    with RemotePrograms(url) as there:
        assert there.run(those.Knobs, session="one") == (0.7, 0)
        for refused in (there.run, lambda *args, **named: list(there.stream(*args, **named))):
            with pytest.raises(LimitExceeded, match="this server has 1 sessions, which is its limit"):
                refused(those.Knobs, session="two")
        assert there.run(those.Knobs, session="one") == (0.7, 0)


def test_a_session_in_which_a_call_runs_is_kept_open(pool, monkeypatch, eventually):
    monkeypatch.setattr(serving, "SESSIONS", 1)
    store = MemoryStore()
    programs = Programs(store, pool(affinity="none"))
    with Server(store, more=(programs,)) as server, RemotePrograms(server.url) as there:
        pieces = there.stream(those.Pieces, 10**9, session="runs")
        assert next(pieces) == 0
        kept = programs._sessions["runs"]
        for other in ("b", "c"):
            assert there.run(those.Knobs, session=other) == (0.7, 0)
            assert list(programs._sessions) == ["runs", other]
        assert not kept.session.closed
        pieces.close()
        eventually(lambda: not kept.calls, "the call has ended")
        assert there.run(those.Knobs, session="d") == (0.7, 0)
        assert list(programs._sessions) == ["d"]
        assert kept.session.closed
    programs.close()


def test_an_answer_may_say_more_than_this_client_knows():
    known = pb.RunReply(output=PLAIN.pack(1, "")).SerializeToString()
    assert serving._answer(known + b"\xa2\x06\x03new", PLAIN) == 1


def test_an_answer_that_is_none_is_refused():
    with pytest.raises(StoreUnavailable, match="5 bytes that are no answer to a run"):
        serving._answer(b"<html", PLAIN)


def test_a_server_that_fails_keeps_to_itself_why(pool, monkeypatch, caplog):
    store, one = MemoryStore(), pool()
    programs = Programs(store, one)
    monkeypatch.setattr(one, "begin_packed", lambda *_, **__: 1 / 0)
    with Server(store, more=(programs,)) as server, RemotePrograms(server.url) as there:
        for failing in (there.run, lambda *args, **named: list(there.stream(*args, **named))):
            with pytest.raises(StoreUnavailable, match=r"its log has the reason\.$") as raised:
                failing(those.Echo, 1)
            assert not any("Traceback" in note for note in getattr(raised.value, "__notes__", ()))
    assert "division by zero" in caplog.text
    programs.close()


def test_a_long_refusal_comes_as_itself(served):
    with RemotePrograms(served()) as there, pytest.raises(UnknownProgram, match="this pool does not serve"):
        there.run(f"{NAMED}:{'K' * 20_000}")


SERVER = f"""
from dspex.pool import Pool
from dspex.pool.serving import serve_programs

if __name__ == "__main__":
    pool = Pool(["{NAMED}:Counting"], workers=1, spares=0)
    serve_programs("memory://", pool, ready=lambda server: print(server.url, flush=True))
"""


def test_a_server_that_is_told_to_end_finishes_what_runs(tmp_path, eventually):
    script, log = tmp_path / "server.py", tmp_path / "log"
    script.write_text(SERVER)
    server = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    url = server.stdout.readline().strip()
    with RemotePrograms(url) as there, ThreadPoolExecutor(1) as threads:
        answer = threads.submit(there.run, those.Counting, str(log), 0.5)
        eventually(log.exists, "the program has begun")
        server.send_signal(signal.SIGTERM)
        assert answer.result(30) > 0
    assert ["begin", "end"] == [line.split()[0] for line in log.read_text().splitlines()]
    assert server.wait(30) == 0
    server.stdout.close()

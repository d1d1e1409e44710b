"""Programs that a shell runs, here and at a server."""

from __future__ import annotations

import json
import signal
import textwrap
from pathlib import Path

import pytest

AGENTS = """
import time
from enum import Enum
from pathlib import Path

import attrs

from dspex import Float, Program, defvariable


class Mood(Enum):
    GOOD = 1


@attrs.frozen
class Answer:
    text: str
    mood: Mood = Mood.GOOD


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)

    def forward(self, question, *more):
        for word in f"{question} {len(more)} {self.temperature}".split(" "):
            yield word + " "


class Odd(Program):
    def forward(self, how) -> Answer | dict:
        if how == "fails":
            raise ValueError("no such thing")
        if how == "hides":
            return object()
        return {"answer": Answer(how), "scores": (0.5, float("nan")), "raw": b"x"}


class Mixed(Program):
    def forward(self):
        yield "one"
        yield 2
        yield "three\\n"


class Patient(Program):
    def forward(self, path):
        try:
            yield "begun\\n"
            time.sleep(60)
        finally:
            Path(path).write_text("left")


class Talking(Program):
    def forward(self, how=""):
        print("thinking")
        if how == "late":
            time.sleep(0.02)
        if how == "itself":
            self.forward(1, 2, 3)
        return "said"


class Broken(Program):
    def init(self):
        raise RuntimeError("the model is not there")

    def forward(self):
        pass
"""


@pytest.fixture
def agents(tmp_path, monkeypatch):
    """The folder with the programs, in which commands are given."""
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "agents_of_tests.py").write_text(textwrap.dedent(AGENTS))
    monkeypatch.chdir(folder)
    yield "agents_of_tests"
    import sys

    sys.modules.pop("agents_of_tests", None)


@pytest.fixture
def run(dspex_, agents):
    """`dspex run`, of a program of those, without the store of the other tests."""

    def go(name, *arguments, **settings):
        where = {"DSPEX_STORE": None, "DSPEX_SESSION": None, **settings}
        return dspex_("run", f"{agents}:{name}", *arguments, **where)

    return go


def test_a_program_runs_with_its_initial_values(run):
    assert run("Agent", "why?", "a", "b").out == "why? 2 0.7 \n"
    assert run("Agent", "why?", DSPEX_STORE="memory://").out == "why? 0 0.7 \n"


def test_a_session_keeps_what_was_set(run, url):
    here = {"DSPEX_STORE": url, "DSPEX_SESSION": "runs"}
    assert run("Agent", "why?", "--set", "temperature=0.2", **here).out == "why? 0 0.2 \n"
    assert run("Agent", "why?", "--pin", **here).out == "why? 0 0.2 \n"
    assert run("Agent", "why?", "--session", "runs", "--store", url).out == "why? 0 0.2 \n"
    assert run("Agent", "why?", "--set", "temperature=0.3").out == "why? 0 0.3 \n"


def test_it_is_said_who_has_set(run, dspex_, url):
    where = {"DSPEX_STORE": url, "DSPEX_SESSION": "runs"}
    run("Agent", "why?", "--set", "temperature=0.2", "--source", "eve", **where)
    assert dspex_("get", "temperature", "--json", **where).json["source"] == "eve"


def test_inputs_come_from_files_and_from_stdin(run, tmp_path):
    (tmp_path / "question").write_text("which?\n")
    assert run("Agent", f"@{tmp_path}/question").out == "which? 0 0.7 \n"
    assert run("Agent", "-", stdin="who?\n").out == "who? 0 0.7 \n"
    assert run("Agent", "@x", "-", "--literal").out == "@x 1 0.7 \n"


def test_what_is_no_text_is_json(run):
    wanted = {"answer": {"text": "yes", "mood": "GOOD"}, "scores": [0.5, "NaN"], "raw": {"base64": "eA=="}}
    assert json.loads(run("Odd", "yes").out) == wanted
    assert run("Odd", "yes", "--json").json == {"output": wanted}
    assert run("Mixed").out == "one\n2\nthree\n"
    lines = run("Mixed", "--json").out.splitlines()
    assert [json.loads(line)["output"] for line in lines] == ["one", 2, "three\n"]


def test_what_it_raises_is_told(run):
    failed = run("Odd", "fails", code=1)
    assert failed.err.splitlines()[-2] == "ValueError: no such thing"
    assert "raise ValueError" in failed.err
    refusal = run("Odd", "fails", "--json", code=1).refusal
    assert (refusal["code"], refusal["message"]) == ("PROGRAM_ERROR", "ValueError: no such thing")
    assert refusal["facts"]["type"] == "builtins.ValueError"
    assert "what Odd gives must be plain data" in run("Odd", "hides", code=1).err


@pytest.mark.parametrize(("name", "inputs"), [("Agent", []), ("Talking", ["a", "b"])])
def test_inputs_that_it_does_not_take_are_refused_in_a_sentence(run, agents, name, inputs):
    (line,) = run(name, *inputs, code=2).err.splitlines()
    assert line.startswith(f"{agents}:{name} does not take these inputs: {name}.forward() ")
    assert run(name, *inputs, "--json", code=2).refusal["code"] == "INVALID_CALL"


def test_a_program_that_calls_itself_wrongly_has_a_traceback(run):
    assert "Traceback" in run("Talking", "itself", code=1).err


def test_what_it_prints_itself_is_not_among_the_json(run):
    done = run("Talking", "--json")
    assert (done.json, done.err) == ({"output": "said"}, "thinking\n")
    assert run("Talking").out == "thinking\nsaid\n"


def test_a_program_that_yields_nothing_and_takes_too_long_is_told_so(run):
    refused = run("Talking", "late", "--timeout", 0.01, code=3)
    assert refused.err.startswith("Talking on session ")
    assert refused.err.endswith(" took longer than 0.01 s.\n")


def test_slips_are_told_before_anything_runs(run, dspex_, agents, url, tmp_path):
    assert "Did you mean 'Agent'" in run("Agnet", code=1).err
    assert "cannot be imported" in dspex_("run", "agents_of_testz:Agent", code=1).err
    assert "package.module:Class" in dspex_("run", "Agent", code=1).err
    assert "--session" in run("Agent", "--session", "x", code=2).err
    assert "--store" in run("Agent", "--store", url, code=2).err
    assert "--set" in run("Agent", "--set", "temperature=1", "--server", "grpc+unix:///x", code=2).err
    assert "at most 1.5" in run("Agent", "why?", "--set", "temperature=2", code=1).err
    assert "Did you mean 'temperature'" in run("Agent", "why?", "--set", "temprature=1", code=1).err
    assert not (tmp_path / "none.db").exists()


@pytest.fixture
def server(command, agents, tmp_path):
    """The URL of a server that runs programs, in a process of its own."""
    pytest.importorskip("grpc")
    socket = tmp_path / "socket"
    socket.mkdir(mode=0o700)
    programs = [part for name in ("Agent", "Odd", "Patient") for part in ("--program", f"{agents}:{name}")]
    serving = command(
        "serve", "--store", "memory://", "--listen", f"unix://{socket}/s", *programs, "--workers", "1"
    )
    assert serving.line() == f"process {serving.process.pid} serves memory:// at grpc+unix://{socket}/s"
    named = ", ".join(f"{agents}:{name}" for name in ("Agent", "Odd", "Patient"))
    assert serving.line() == f"workers: 1, programs: {named}"
    yield f"grpc+unix://{socket}/s"
    assert (serving.end(signal.SIGTERM), serving.rest()) == (0, [])


def test_a_program_runs_at_a_server(run, dspex_, agents, server):
    there = ["--server", server]
    assert run("Agent", "why?", *there).out == "why? 0 0.7 \n"
    assert run("Agent", "why?", "--session", "prod", *there).out == "why? 0 0.7 \n"
    assert dspex_("set", "temperature=0.2", "--store", server, "--session", "prod").code == 0
    assert (
        run("Agent", "why?", *there, DSPEX_STORE="sqlite:///x", DSPEX_SESSION="prod").out == "why? 0 0.2 \n"
    )
    assert run("Agent", "a", "--session", "prod", "--set", "temperature=0.3", *there).out == "a 0 0.3 \n"
    assert json.loads(run("Odd", "yes", *there).out)["answer"] == {"text": "yes", "mood": "GOOD"}
    failed = run("Odd", "fails", *there, code=1)
    assert "ValueError: no such thing" in failed.err
    (line,) = run("Agent", *there, code=2).err.splitlines()
    assert line.startswith(f"{agents}:Agent does not take these inputs: Agent.forward() missing 1 ")
    assert "Did you mean" in dspex_("run", f"{agents}:Agnet", *there, code=1).err


@pytest.fixture
def patience(run, command, agents, server, tmp_path):
    """Run a program at a server that takes a minute, until it is out of time, or has begun."""

    def go(mark, timeout=None):
        arguments = ("Patient", tmp_path / mark, "--server", server)
        if timeout is not None:
            return run(*arguments, "--timeout", timeout, code=3)
        running = command("run", f"{agents}:Patient", *arguments[1:])
        assert running.line() == "begun"
        return running

    return go


def test_a_program_at_a_server_has_as_long_as_was_said(patience):
    assert "took longer than 0.3 s" in patience("late", 0.3).err


def test_a_program_at_a_server_ends_with_ctrl_c(patience, tmp_path, eventually):
    assert patience("left").end(signal.SIGINT) == 130
    eventually((tmp_path / "left").exists, "the program was left")


def test_a_server_whose_programs_cannot_start_says_so(dspex_, agents):
    for name, why in (("Broken", "the model is not there"), ("None", "has no None")):
        done = dspex_("serve", "--store", "memory://", "--program", f"{agents}:{name}", code=1)
        assert why in done.err
    assert "--program" in dspex_("serve", "--workers", "2", code=2).err


def test_help_and_values_load_nothing_of_pools(script):
    script(
        "import sys\n"
        "from dspex.cli import main\n"
        "sys.argv = ['dspex', 'run', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "assert not {'grpc', 'dspex.pool', 'asyncio', 'dspy', 'ray'} & set(sys.modules)"
    )


def test_a_command_leaves_the_path_of_imports_as_it_was(run):
    import sys

    before = list(sys.path)
    run("Agent", "why?")
    assert before == sys.path
    assert str(Path.cwd()) not in sys.path

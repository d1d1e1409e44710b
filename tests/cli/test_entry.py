"""How the command line starts, fails and ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import dspex
from dspex import DspexError, errors
from dspex.cli.app import app
from dspex.cli.exits import MEANINGS, exit_code
from dspex.errors import SessionMoving

ROOT = str(Path(dspex.__file__).parents[1])


def test_importing_dspex_does_not_import_the_command_line(script):
    heavy = "{'typer', 'rich', 'pydantic', 'packaging', 'dspex.cli'}"
    assert script(f"import sys, dspex\nprint({heavy} & set(sys.modules))") == "set()\n"
    assert (
        script("import sys, dspex.cli\nprint({'typer', 'rich', 'pydantic'} & set(sys.modules))") == "set()\n"
    )


def test_reading_a_value_loads_nothing_that_it_does_not_need(script, url):
    printed = script(
        "import sys\n"
        "from dspex.cli import main\n"
        f"sys.argv = ['dspex', 'get', 'temperature', '--session', 'demo', '--store', {url!r}]\n"
        "try: main()\n"
        "except SystemExit as ended: print(ended.code)\n"
        "heavy = {'rich', 'grpc', 'dspy', 'numpy', 'packaging', 'asyncio', 'optuna', 'dspex.optimizers'}\n"
        "print(heavy & set(sys.modules))"
    )
    assert printed == "0.7\n0\nset()\n"


@pytest.mark.parametrize(("package", "command"), [("typer", "get"), ("packaging", "doctor")])
def test_without_the_extra_its_name_is_said(script, package, command):
    source = (
        "import email.message, importlib.metadata, sys\n"
        "importlib.metadata.metadata = lambda name: email.message.Message()\n"
        "importlib.metadata.requires = lambda name: ['attrs']\n"
        f"sys.modules[{package!r}] = None\n"
        "import dspex.cli\n"
        f"sys.argv = ['dspex', {command!r}]\n"
        "sys.stderr = sys.stdout\n"
        "try: dspex.cli.main()\n"
        "except SystemExit as ended: print(ended.code)\n"
    )
    sentence = str(errors.missing_extra("Commands", "cli"))
    assert "dspex[cli]" in sentence
    assert script(source).splitlines()[-2:] == [sentence, "1"]


def test_the_version(dspex_):
    assert dspex_("--version").out == f"{dspex.__version__}\n"


def test_slips_have_their_own_exit_code(dspex_):
    for slip in (["gte"], ["get"], ["get", "note", "--jsn"], ["history", "--limit", "0"], []):
        assert dspex_(*slip, code=2).out == "" or not slip
    assert "Did you mean 'get'" in dspex_("gte", code=2).err
    assert "DSPEX_STORE" in dspex_("get", "note", code=2, DSPEX_STORE=None).err


def below(error):
    return [error, *(one for child in error.__subclasses__() for one in below(child))]


def test_every_refusal_has_an_exit_code():
    found = {error.__name__: exit_code(error("why")) for error in below(DspexError)}
    assert set(found.values()) <= set(MEANINGS)
    assert (found["StoreUnavailable"], found["DeadlineExceeded"], found["StaleRead"]) == (3, 3, 3)
    assert (found["VersionConflict"], found["Claimed"], found["InvalidValue"]) == (4, 4, 1)
    assert exit_code(SessionMoving("why")) == 3


def test_what_is_no_refusal_is_not_hidden(monkeypatch):
    monkeypatch.setattr("dspex.cli.reading.opened", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        app(["get", "note", "--store", "x", "--session", "y"])


@pytest.mark.parametrize("asked", [["list"], ["watch", "--since", "0"]], ids=["list", "watch"])
def test_a_reader_that_goes_away_is_no_reason_to_cry(url, opened, asked):
    # head -c0 in a pipe, without a shell
    reading, writing = os.pipe()
    os.close(reading)
    opened(lambda session: session.set("note", "seen"))
    done = subprocess.run(
        [sys.executable, "-m", "dspex", *asked, "--store", url, "--session", "demo"],
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=55,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (
        141,
        "" if asked == ["list"] else f"watching session 'demo' from revision {opened(epoch)}:0\n",
    )


def epoch(session):
    return session.revision.epoch


def test_a_terminal_gets_colours_unless_it_wants_none(terminal, url):
    arguments = ("list", "--store", url, "--session", "demo")
    cyan = "\x1b[36m"
    assert f"{cyan}temperature" in terminal(*arguments)
    assert cyan not in terminal(*arguments, NO_COLOR="1")
    assert "╭" in terminal("--help")


def test_a_value_is_printed_where_its_letters_cannot_be(command, url, opened):
    opened(lambda session: session.set("note", "ä"))
    arguments = ("get", "note", "--store", url, "--session", "demo")
    assert command(*arguments, environment={"PYTHONIOENCODING": "ascii"}).rest() == ["\\xe4"]


def test_a_terminal_is_not_steered_by_a_value(terminal, url, opened):
    opened(lambda session: session.set("note", "\x1b[2Jä\nb\x9b"))
    assert terminal("get", "note", "--store", url, "--session", "demo") == "\\x1b[2Jä\r\nb\\x9b\r\n"


def test_an_interrupt_while_it_starts_is_one_as_well(script):
    printed = script(
        "import sys, dspex.cli\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'typer': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "try: dspex.cli.main()\n"
        "except SystemExit as ended: print(ended.code)\n"
    )
    assert printed == "130\n"

"""The page about the commands says what is so, and the two terminals show what happens."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.main import get_command

import dspex
from dspex.cli.app import app
from dspex.cli.exits import MEANINGS

ROOT = Path(dspex.__file__).parents[1]
PAGE = (ROOT / "docs" / "cli.md").read_text()
COMMANDS = get_command(app).commands
SHARED = {"--store", "--session", "--json", "--help", "-h"}


def sections(page):
    """The text under each heading of the second level."""
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_its_section_in_the_order_of_the_help():
    assert [title for title in sections(PAGE) if title in COMMANDS] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_of_a_command_is_explained(name):
    text = sections(PAGE)[name]
    for parameter in COMMANDS[name].params:
        if parameter.param_type_name == "argument":
            assert parameter.metavar in text
        else:
            own = [option for option in parameter.opts if option not in SHARED]
            assert all(f"`{option}" in text for option in own), own


@pytest.mark.parametrize("name", COMMANDS)
def test_no_option_is_explained_that_there_is_not(name):
    explained = set(re.findall(r"^\| .*?`(--[a-z-]+)", sections(PAGE)[name], re.MULTILINE))
    assert explained <= {option for parameter in COMMANDS[name].params for option in parameter.opts}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_prints_json_and_has_help(name, dspex_):
    help_text = dspex_(name, "--help").out
    assert "--json" in help_text
    assert COMMANDS[name].help.splitlines()[0] in " ".join(help_text.split())


def test_what_is_shared_is_explained_once():
    shared = sections(PAGE)["What all commands share"]
    for option in SHARED - {"-h"}:
        assert f"| `{option}" in shared


def test_the_exit_codes_are_those_of_the_code():
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", PAGE, re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == dict(MEANINGS)


# ---- two terminals -----------------------------------------------------------------------------------

WALK = (ROOT / "docs" / "two-terminals.md").read_text()
DEMO = "/tmp/dspex-demo"

VARYING = {
    r"process \d+ serves": r"process (?P<pid>\\d+) serves",
    r"revision [0-9a-f]{8}:": r"revision [0-9a-f]{8}:",
    r"\d\d:\d\d:\d\d ": r"\\d\\d:\\d\\d:\\d\\d ",
}
"""What is another each time, and what it must look like then."""


def pattern(line):
    made = re.escape(line).replace(r"\ ", " ")
    for seen, expected in VARYING.items():
        made = re.sub(seen, expected, made)
    return made


class Terminals:
    """Runs what the page shows, each block in the terminal that it names."""

    def __init__(self, start, folder):
        (folder / "bin").mkdir()
        for name, module in (("dspex", "-m dspex"), ("python", "")):
            tool = folder / "bin" / name
            tool.write_text(f'#!/bin/sh\nexec {sys.executable} {module} "$@"\n')
            tool.chmod(0o755)
        (folder / "examples").symlink_to(ROOT / "examples")
        (folder / "socket").mkdir(mode=0o700)
        self._start = start
        self._folder = folder
        self._where = {"PATH": f"{folder}/bin:{os.environ['PATH']}"}
        self._last = {}
        self._pid = ""

    def here(self, text):
        """*text* with the socket of this test in the place of the one of the page."""
        return text.replace(DEMO, f"{self._folder}/socket")

    def play(self, terminal, line):
        if line.startswith("$ export "):
            self._where.update(pair.split("=", 1) for pair in self.here(line[9:]).split())
        elif line.startswith("$ kill -9 "):
            os.kill(int(self._pid), signal.SIGKILL)
            assert self._last["server"].code() == -signal.SIGKILL
        elif line.startswith("$ "):
            self._end(terminal)
            self._last[terminal] = self._start(
                *("bash", "-c", f"exec {self.here(line[2:])}"),
                cwd=self._folder,
                environment=self._where,
                stderr=subprocess.STDOUT,
            )
        elif line == "^C":
            assert self._last[terminal].end() in (0, 130)
            self._end(terminal)
        else:
            printed = self._last[terminal].line()
            found = re.fullmatch(pattern(self.here(line)), printed or "")
            assert found, f"{terminal} printed {printed!r}, the page has {line!r}"
            self._pid = found.groupdict().get("pid", self._pid)

    def _end(self, terminal):
        """What was started there has printed nothing more, and has ended."""
        if terminal in self._last:
            assert self._last.pop(terminal).rest() == []

    def close(self):
        for terminal in list(self._last):
            self._end(terminal)


@pytest.mark.timeout(300)  # 14 processes, one after the other
def test_the_two_terminals_show_what_happens(running, tmp_path):
    blocks = re.findall(r"^```console ?(\w*)\n(.*?)^```", WALK, re.MULTILINE | re.DOTALL)
    assert {name for name, _ in blocks} == {"", "server", "agent", "watcher", "operator"}
    terminals = Terminals(running, tmp_path)
    for terminal, block in blocks:
        for line in block.splitlines():
            terminals.play(terminal, line)
    terminals.close()

"""The page about servers says what is so."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from dspex.rpc.address import PARAMETERS
from dspex.rpc.auth import VERBS
from dspex.rpc.limits import Limits, Timers
from dspex.rpc.patterns import LONGEST, STEPS, steps

PAGE = (Path(__file__).parents[2] / "docs" / "remote.md").read_text()


def test_every_parameter_and_every_verb_is_explained():
    for parameter in PARAMETERS:
        assert re.search(rf"^\| `{parameter}=", PAGE, re.MULTILINE), parameter
    for verb in VERBS:
        assert f"| `{verb}` |" in PAGE, verb


def test_the_limits_and_times_are_those_of_the_code():
    limits, timers = Limits(), Timers()
    assert f"| {limits.sessions:,} |" in PAGE
    assert f"| {limits.links:,}; {limits.watches:,} |" in PAGE
    assert f"| {limits.commits:,} a second |" in PAGE
    assert f"| {limits.words:,} characters |" in PAGE
    assert f"every {timers.bookmark:g}" in PAGE
    assert f"for {timers.silence:g} seconds" in PAGE
    assert "from {:g} to {:g} seconds".format(*timers.backoff) in PAGE
    assert attrs.fields(Timers).deadline.default == 5
    assert f"| {limits.opens:,} a second |" in PAGE
    assert f"| {limits.in_flight} |" in PAGE
    assert f"| {limits.failures} a second |" in PAGE
    assert f"| {LONGEST} characters, {STEPS:,} steps |" in PAGE


def test_the_expressions_are_refused_and_taken_as_it_says():
    assert steps("(a+)+", 2**20) > STEPS >= steps("[a-z]+(-[a-z]+)*", 2**20)
    (most,) = re.findall(r"`\.\*x\.\*` for texts of more than about ([0-9,]+) characters", PAGE)
    assert (
        steps(".*x.*", int(most.replace(",", "")) - 100)
        <= STEPS
        < steps(".*x.*", int(most.replace(",", "")) + 100)
    )


def test_the_walk_through_works_as_it_is_written(tmp_path):
    blocks = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 3
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "PYTHONUNBUFFERED": "1"}

    def start(block):
        # The directory of the test in the place of the one in /tmp.
        text = block.replace("/tmp/dspex-$USER", f"{tmp_path}/walk").replace(
            "python -c", f"{sys.executable} -c"
        )
        return subprocess.Popen(
            ["bash", "-c", f"exec {text}" if text.startswith(sys.executable) else text],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    server = start(blocks[0])
    watcher = None
    try:
        assert server.stdout.readline().startswith("grpc+unix://")
        watcher = start(blocks[1])
        setting = None
        # The watcher may not watch yet when the first comes; it says nothing before something happens.
        for _ in range(20):
            setting = start(blocks[2])
            out, errors = setting.communicate(timeout=30)
            if setting.returncode == 0:
                break
        assert (setting.returncode, out) == (0, ""), errors
        again = start(blocks[2])
        again.communicate(timeout=30)
        assert re.fullmatch(r"temperature 0\.[27] -> 0\.2 by operator\n", watcher.stdout.readline())
        os.killpg(server.pid, signal.SIGINT)
        server.communicate(timeout=20)
        server = start(blocks[0])
        assert server.stdout.readline().startswith("grpc+unix://")
        start(blocks[2]).communicate(timeout=30)
        assert watcher.stdout.readline() == "temperature 0.2 -> 0.2 by operator\n"
    finally:
        for process in (server, watcher):
            if process is not None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_what_is_shown_in_python_can_be_read(block):
    compile(block, "docs/remote.md", "exec")

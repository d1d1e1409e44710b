"""Stores and sessions of the tests of moving."""

import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from dspex import Session

sys.path.insert(0, str(Path(__file__).parent))  # for moving_tools
sys.path.insert(0, str(Path(__file__).parents[1] / "stores"))  # for sqlite_tools
sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))  # for redis_servers
from moving_tools import KINDS, Places


@pytest.fixture
def place(tmp_path):
    with ExitStack() as stack:
        yield Places(tmp_path, stack)


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """One store of every kind, for tests that use many ids."""
    with ExitStack() as stack:
        made = Places(tmp_path_factory.mktemp("places"), stack)
        yield {kind: made(kind) for kind in KINDS}


@pytest.fixture
def opens():
    """Open sessions that are closed at the end."""
    with ExitStack() as stack:
        yield lambda *words, **named: stack.enter_context(Session(*words, **named))

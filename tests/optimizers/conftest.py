"""What the tests of optimizers share; programs and models are in `study_tools`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for study_tools, which processes of their own import too

from study_tools import Pupil, Tuned, asked

from dspex import Session


@pytest.fixture(autouse=True)
def _somewhere_else(tmp_path, monkeypatch):
    """By default a study is kept in the working directory."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def tuned():
    return Tuned


@pytest.fixture
def live():
    """A session that the program is bound to."""
    with Session("live", source="tests") as session:
        Tuned.bind(session)
        yield session


@pytest.fixture
def rows():
    return [{"x": x} for x in range(20)]


@pytest.fixture
def file(tmp_path):
    """A storage in a file."""
    return f"sqlite:///{tmp_path}/studies.db"


def output(gold, pred, trace=None):
    """A metric: the program says itself how good it is."""
    return pred


@pytest.fixture
def said():
    return output


@pytest.fixture
def pupil():
    """The engine, used by everything in the test."""
    with asked(Pupil()) as engine:
        yield engine

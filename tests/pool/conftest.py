"""Pools for the tests, closed at the end."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("grpc")

from dspex.pool import Pool
from dspex.testing.pool_programs import ALL


@pytest.fixture
def pool():
    """Make pools of `dspex.testing.pool_programs`; all are closed at the end."""
    pools = []

    def make(programs=ALL, **settings):
        settings = {"workers": 2, "spares": 0, "queue": 1000, **settings}
        made = Pool(programs, **settings)
        pools.append(made)
        made.wait_ready()
        return made

    yield make
    for made in pools:
        made.close()


@pytest.fixture(autouse=True)
def counted(request, monkeypatch):
    """Have workers count the lines that they run, if this process does."""
    here = sys.modules.get("coverage")
    counts = here is not None and here.Coverage.current() is not None
    if counts and request.node.get_closest_marker("ray") is None:
        monkeypatch.setenv("COVERAGE_PROCESS_START", str(Path(__file__).with_name("coverage.ini")))
        monkeypatch.setenv("COVERAGE_FILE", str(Path(here.Coverage.current().config.data_file).absolute()))


@pytest.fixture(scope="session")
def cluster():
    """Ray on this machine."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


def alive(pid: int) -> bool:
    """Whether there is such a process, zombies aside."""
    try:
        return (Path(f"/proc/{pid}/stat").read_text()).rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def lives():
    """Say whether a process lives."""
    return alive

"""Pools for the tests, closed at the end."""

from __future__ import annotations

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


@pytest.fixture(autouse=True, scope="module")
def counted_workers(request):
    """Have workers count the lines that they run; not those of Ray."""
    if request.node.get_closest_marker("ray") is None:
        request.getfixturevalue("all_counted")


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

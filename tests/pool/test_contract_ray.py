"""The pool on Ray keeps the contract."""

import os
import signal

import pytest

pytest.importorskip("ray")
pytest.importorskip("grpc")

from dspex import WorkerLost
from dspex.pool import RayPool
from dspex.testing import PoolContract
from dspex.testing import pool_programs as those
from dspex.testing.pool_programs import ALL

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files open
]


class TestRay(PoolContract):
    interrupts = False

    @pytest.fixture
    def make(self, cluster):
        pools = []

        def made(**settings):
            settings = {"workers": 2, "queue": 1000, **settings}
            pools.append(RayPool(ALL, options={"num_cpus": 0}, **settings))
            pools[-1].wait_ready(60)
            return pools[-1]

        yield made
        for pool in pools:
            pool.close()

    @pytest.fixture
    def one(self, shared):
        return shared


@pytest.fixture(scope="module")
def shared(cluster):
    with RayPool(ALL, workers=2, options={"num_cpus": 0}) as one:
        yield one


def actors(pool):
    """The names of its actors that Ray has, or brings back."""
    from ray.util import list_named_actors

    return [name for name in list_named_actors() if name.startswith(f"dspex-{pool.name}-")]


def test_ray_does_not_bring_back_a_worker_that_was_to_leave(cluster, eventually):
    with RayPool([those.Where], workers=2, affinity="none", options={"num_cpus": 0}) as pool:
        calls = [pool.submit(those.Where, 1.0) for _ in range(2)]
        eventually(lambda: all(call.running() for call in calls), "both run")
        pool.resize(1)
        leaving = next(one for one in pool.stats().workers if one.state == "leaving")
        os.kill(leaving.pid, signal.SIGKILL)
        eventually(lambda: len(actors(pool)) == 1, "the other one is left")
        assert sorted(isinstance(call.exception(30), WorkerLost) for call in calls) == [False, True]


def test_a_pool_leaves_no_actor_where_no_worker_could_start(cluster, eventually):
    pool = RayPool([those.Exits], workers=1, restarts=1, options={"num_cpus": 0})
    with pytest.raises(WorkerLost, match="while it started"):
        pool.wait_ready(60)
    pool.close()
    eventually(lambda: not actors(pool), "it has no actor")

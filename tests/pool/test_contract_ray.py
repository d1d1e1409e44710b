"""The pool on Ray keeps the contract."""

import pytest

pytest.importorskip("ray")
pytest.importorskip("grpc")

from dspex.pool import RayPool
from dspex.testing import PoolContract
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

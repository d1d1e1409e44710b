"""The local pool keeps the contract."""

import pytest

pytest.importorskip("grpc")

from dspex.pool import Pool
from dspex.testing import PoolContract
from dspex.testing.pool_programs import ALL


class TestLocal(PoolContract):
    @pytest.fixture
    def make(self, pool):
        return pool

    @pytest.fixture
    def one(self, shared):
        return shared


@pytest.fixture(scope="module")
def shared():
    with Pool(ALL, workers=2, spares=0) as one:
        yield one

"""The contract of stores on the reference."""

import pytest

from dspex.stores import MemoryStore
from dspex.testing import StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self):
        return MemoryStore()

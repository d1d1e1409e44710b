"""A remote store is a store: the same contract, in front of memory and of a database."""

from __future__ import annotations

import pytest
from soak import LIMIT, often

from dspex.testing import StoreContract

pytestmark = pytest.mark.timeout(LIMIT)


class TestRemoteMemory(StoreContract):
    examples = often(10, 200)

    @pytest.fixture
    def store(self, serving, remote):
        return remote(serving().url)


class TestRemoteSqlite(StoreContract):
    examples = often(10, 200)

    @pytest.fixture
    def served(self, serving, tmp_path):
        return serving(f"sqlite:///{tmp_path}/contract.db")

    @pytest.fixture
    def store(self, served, remote):
        return remote(served.url)

    @pytest.fixture
    def reopen(self, served, remote, serving, tmp_path):
        """Stop the server, and let another one have the file."""
        servers = [served]

        def again():
            servers[-1].stop(0)
            servers[-1].store.close()
            servers.append(serving(f"sqlite:///{tmp_path}/contract.db"))
            return remote(servers[-1].url)

        return again

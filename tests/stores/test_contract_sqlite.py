"""The contract of stores on SQLite."""

import pytest

from dspex.stores.sqlite import SqliteStore
from dspex.testing import StoreContract


@pytest.mark.timeout(300)
class TestSqlite(StoreContract):
    @pytest.fixture
    def url(self, tmp_path):
        return f"sqlite:///{tmp_path}/store.db?durability=fast"

    @pytest.fixture
    def store(self, url):
        with SqliteStore(url) as store:
            yield store

    @pytest.fixture
    def reopen(self, store, url):
        last = [store]

        def again():
            last[-1].close()
            last.append(SqliteStore(url))
            return last[-1]

        yield again
        last[-1].close()

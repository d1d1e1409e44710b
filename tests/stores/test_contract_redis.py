"""The contract of stores on Valkey, and on Debian's Redis where it is installed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("redis")
pytest.importorskip("hiredis")

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from redis_servers import start_redis, start_valkey

from dspex.stores.redis import RedisStore
from dspex.testing import StoreContract


@pytest.fixture(scope="module")
def valkey(tmp_path_factory):
    with start_valkey(tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    with start_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


class _OnAServer(StoreContract):
    examples = 10

    @pytest.fixture
    def url(self, running):
        running.flush()
        return running.url

    @pytest.fixture
    def store(self, url):
        store = RedisStore(url)
        yield store
        store.close()

    @pytest.fixture
    def reopen(self, store, url):
        last = [store]

        def again():
            last[-1].close()
            last.append(RedisStore(url))
            return last[-1]

        yield again
        last[-1].close()


class TestValkey(_OnAServer):
    @pytest.fixture
    def running(self, valkey):
        return valkey


class TestRedis(_OnAServer):
    @pytest.fixture
    def running(self, redis):
        return redis

"""Stores by URL."""

from __future__ import annotations

from importlib import import_module

from dspex import errors
from dspex.locks import ForkSafeLock
from dspex.stores.base import Ledger, Store
from dspex.stores.ledger import MemoryLedger
from dspex.stores.memory import MemoryStore

__all__ = ["SCHEMES", "Ledger", "MemoryLedger", "MemoryStore", "Store", "open_store"]

SCHEMES = {
    "memory": "dspex.stores.memory:MemoryStore",
    "sqlite": "dspex.stores.sqlite:SqliteStore",
    **dict.fromkeys(
        (
            "redis",
            "rediss",
            "redis+unix",
            "redis+sentinel",
            "rediss+sentinel",
            "redis+cluster",
            "rediss+cluster",
            "valkey",
            "valkeys",
            "valkey+unix",
            "valkey+sentinel",
            "valkey+cluster",
        ),
        "dspex.stores.redis:RedisStore",
    ),
    "valkey+embedded": "dspex.stores.redis_embedded:EmbeddedStore",
    "grpc": "dspex.rpc.client:RemoteStore",
    "grpc+unix": "dspex.rpc.client:RemoteStore",
}
"""Where the store for a URL's scheme is; imported when it is first asked for."""

_memory: dict[str, MemoryStore] = {}
_lock = ForkSafeLock()


def open_store(url: str | Store) -> Store:
    """
    Return the store that *url* names; a `Store` as it is.

    `memory://` is one store for the whole process, `memory://name` another.

    Raises:
        StoreUnavailable: No store has that scheme, or it cannot be opened.
        InvalidValue: It has a parameter that the store does not.
        MissingExtra: The store's package is not installed.
    """
    if isinstance(url, Store):
        return url
    if isinstance(url, str) and (known := _memory.get(url)) is not None:
        return known
    scheme = url.partition("://")[0] if isinstance(url, str) else ""
    if scheme not in SCHEMES:
        shown = errors.without_login(url)
        schemes = ", ".join(f"{name}://" for name in SCHEMES)
        raise errors.StoreUnavailable(
            f"no store has the scheme of {errors.shown(shown, 80)}; known are {schemes}.", url=shown
        )
    if scheme == "memory":
        if "?" in url:
            raise errors.InvalidValue.expecting(
                "a name alone: a store in memory has no parameters", errors.shown(url, 80)
            ).at("what follows memory://")
        with _lock:
            return _memory.setdefault(url, MemoryStore())
    module, _, name = SCHEMES[scheme].partition(":")
    store: Store = getattr(import_module(module), name)(url)
    return store

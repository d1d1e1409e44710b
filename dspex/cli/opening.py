"""Stores and sessions as commands open them: those that are there; none is made by a typing error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from dspex import errors
from dspex.records import SessionInfo
from dspex.session import Session
from dspex.stores import open_store
from dspex.stores.base import Ledger, Store

__all__ = ["made_store", "opened", "opened_store"]


class _Existing(Store):
    """The sessions of a store that are there: opening makes none."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def open(self, session_id: str, *, create: bool = True) -> Ledger:
        return self._store.open(session_id, create=False)

    def sessions(self) -> Sequence[SessionInfo]:
        return self._store.sessions()

    def delete(self, session_id: str) -> None:
        self._store.delete(session_id)

    def close(self) -> None:
        self._store.close()


def _refuse_memory(url: str) -> None:
    if url.startswith("memory:"):
        raise errors.StoreUnavailable(
            f"{url} is in the memory of one process, and this command is another. "
            "Give the store of a server (grpc+unix:///path) or of a file (sqlite:///agent.db).",
            url=url,
        )


def _refuse_missing(url: str) -> None:
    if url.startswith("sqlite:"):
        from dspex.stores.sqlite_file import Location

        path = Location.of_url(url).path
        if not path.exists():
            raise errors.StoreUnavailable(f"{path} is not there.", path=str(path))


@contextmanager
def made_store(url: str) -> Iterator[Store]:
    """The store at *url*, made if it is a file that is not there, while the block runs."""
    _refuse_memory(url)
    store = open_store(url)
    try:
        yield store
    finally:
        store.close()


@contextmanager
def opened_store(url: str) -> Iterator[Store]:
    """The store at *url*, which is there, while the block runs."""
    _refuse_missing(url)
    with made_store(url) as store:
        yield store


@contextmanager
def opened(url: str, session_id: str, source: str | None = None) -> Iterator[Session]:
    """A session that is there, while the block runs."""
    with opened_store(url) as store, Session(session_id, store=_Existing(store), source=source) as session:
        yield session

"""The async twins of the session's verbs: no rules of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from dspex.changes import Change
    from dspex.claims import Claim
    from dspex.commits import Receipt
    from dspex.records import Revision, Snapshot
    from dspex.stores import Ledger, Store

__all__ = ["AsyncVerbs"]

P = ParamSpec("P")
R = TypeVar("R")


class AsyncVerbs:
    """
    Each verb with an `a` in front takes and gives what the verb does, and never blocks the event loop.

    Where the store is memory a commit takes microseconds and is made at once; else it is made in a thread.
    """

    __slots__ = ()

    if TYPE_CHECKING:
        _ledger: Ledger
        set: Callable[..., Change]
        update: Callable[..., Receipt]
        swap: Callable[..., Change]
        snapshot: Callable[..., Snapshot]
        history: Callable[..., Sequence[Change]]
        rollback: Callable[..., Receipt]
        tag: Callable[..., Revision]
        claim: Callable[..., Claim]
        commit_to_parent: Callable[..., Receipt]
        move_to: Callable[..., None]
        delete: Callable[[], None]
        close: Callable[[], None]

    async def _call(self, verb: Callable[P, R], *args: P.args, **keywords: P.kwargs) -> R:
        if self._ledger.blocking:
            import asyncio

            return await asyncio.to_thread(verb, *args, **keywords)
        return verb(*args, **keywords)

    async def aset(
        self,
        name: str,
        value: Any,
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
        expect: int | None = None,
    ) -> Change:
        """`set`, awaited."""
        return await self._call(self.set, name, value, metadata, source=source, expect=expect)

    async def aupdate(
        self,
        values: Mapping[str, Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
        expect: Mapping[str, int] | None = None,
    ) -> Receipt:
        """`update`, awaited."""
        return await self._call(self.update, values, metadata, source=source, expect=expect)

    async def aswap(
        self,
        name: str,
        fn: Callable[[Any], Any],
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
    ) -> Change:
        """`swap`, awaited."""
        return await self._call(self.swap, name, fn, metadata, source=source)

    async def asnapshot(self, tag: str | None = None) -> Snapshot:
        """`snapshot`, awaited."""
        return await self._call(self.snapshot, tag)

    async def ahistory(self, name: str | None = None) -> Sequence[Change]:
        """`history`, awaited."""
        return await self._call(self.history, name)

    async def arollback(
        self,
        name: str | None = None,
        version: int | None = None,
        *,
        to: str | None = None,
        source: str | None = None,
    ) -> Receipt:
        """`rollback`, awaited."""
        return await self._call(self.rollback, name, version, to=to, source=source)

    async def atag(self, label: str) -> Revision:
        """`tag`, awaited."""
        return await self._call(self.tag, label)

    async def aclaim(self, names: Iterable[str], *, owner: str, ttl: float) -> Claim:
        """`claim`, awaited."""
        return await self._call(self.claim, names, owner=owner, ttl=ttl)

    async def acommit_to_parent(
        self,
        names: Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
        force: bool = False,
    ) -> Receipt:
        """`commit_to_parent`, awaited."""
        return await self._call(self.commit_to_parent, names, metadata, source=source, force=force)

    async def amove_to(self, target: str | Store, *, as_id: str | None = None) -> None:
        """`move_to`, awaited."""
        import asyncio

        await asyncio.to_thread(self.move_to, target, as_id=as_id)

    async def adelete(self) -> None:
        """`delete`, awaited."""
        await self._call(self.delete)

    async def aclose(self) -> None:
        """`close`, awaited."""
        await self._call(self.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

"""The async twins of the session's verbs: no rules of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from dspex.crossing import WouldWait, here

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from dspex.changes import Change
    from dspex.claims import Claim
    from dspex.commits import Declaration, Receipt
    from dspex.records import Revision, Snapshot
    from dspex.rollouts import Guard, Rollout
    from dspex.runs import Run
    from dspex.session import Session
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

        def __init__(self, id: str | None, *, store: str | Store, source: str | None) -> None: ...

        _ledger: Ledger
        _parent: Session | None
        register: Callable[..., Declaration]
        set: Callable[..., Change]
        update: Callable[..., Receipt]
        swap: Callable[..., Change]
        snapshot: Callable[..., Snapshot]
        history: Callable[..., Sequence[Change]]
        rollback: Callable[..., Receipt]
        tag: Callable[..., Revision]
        claim: Callable[..., Claim]
        fork: Callable[..., Session]
        commit_to_parent: Callable[..., Receipt]
        move_to: Callable[..., None]
        feedback: Callable[..., int]
        rollout: Callable[..., Rollout]
        delete: Callable[[], None]
        close: Callable[[], None]

        @property
        def tags(self) -> Mapping[str, Revision]: ...

    async def _call(self, verb: Callable[P, R], *args: P.args, **keywords: P.kwargs) -> R:
        if not self._ledger.blocking:
            here.asked = self
            try:
                return verb(*args, **keywords)
            except WouldWait:  # because somebody moves the session
                pass
            finally:
                here.asked = None
        import asyncio

        return await asyncio.to_thread(verb, *args, **keywords)

    @classmethod
    async def aopen(
        cls, id: str | None = None, *, store: str | Store = "memory://", source: str | None = None
    ) -> Self:
        """`Session(…)`, awaited."""
        import asyncio

        return await asyncio.to_thread(cls, id, store=store, source=source)

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

    async def atags(self) -> Mapping[str, Revision]:
        """`tags`, awaited."""
        return await self._call(lambda: self.tags)

    async def aregister(
        self,
        name: str,
        kind: Any,
        *,
        initial: Any,
        constraints: Mapping[str, Any] | None = None,
        description: str = "",
    ) -> Declaration:
        """`register`, awaited."""
        return await self._call(
            self.register, name, kind, initial=initial, constraints=constraints, description=description
        )

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

    async def afork(self, values: Mapping[str, Any] | None = None) -> Session:
        """`fork`, awaited."""
        return await self._call(self.fork, values)

    async def acommit_to_parent(
        self,
        names: Iterable[str] | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        source: str | None = None,
        force: bool = False,
    ) -> Receipt:
        """`commit_to_parent`, awaited."""
        asked = self._parent or self  # a fork is in memory, and its parent wherever it is
        return await asked._call(self.commit_to_parent, names, metadata, source=source, force=force)

    async def amove_to(self, target: str | Store, *, as_id: str | None = None) -> None:
        """`move_to`, awaited."""
        import asyncio

        await asyncio.to_thread(self.move_to, target, as_id=as_id)

    async def afeedback(self, run: Run, score: float) -> int:
        """`feedback`, awaited."""
        return await self._call(self.feedback, run, score)

    async def arollout(
        self,
        name: str,
        shares: Mapping[Any, float],
        *,
        key: str | Callable[[Mapping[str, Any]], Any] | None = None,
        guard: Guard | None = None,
    ) -> Rollout:
        """`rollout`, awaited."""
        return await self._call(self.rollout, name, shares, key=key, guard=guard)

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

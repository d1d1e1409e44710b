"""Where a fork begins, and what it gives back to its parent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from dspex import errors
from dspex.commits import Receipt, Write, names_of
from dspex.locks import ForkSafeLock
from dspex.stores import Ledger, MemoryLedger

if TYPE_CHECKING:
    from dspex.session import Session

__all__ = ["fork_of", "note_given", "refused", "writes_back"]

_lock = ForkSafeLock()
"""That of forks of sessions whose own store is not in this process."""


def fork_of(ledger: Ledger) -> MemoryLedger:
    """A private ledger that starts as *ledger*, of any store, is now."""
    if isinstance(ledger, MemoryLedger):
        lock = ledger._lock
        with lock:
            return MemoryLedger(lock, start=ledger.snapshot(), schema=ledger.schema, rules=ledger.rules)
    while True:  # without a lock: a snapshot may ask a server, and call watchers
        schema, start = ledger.schema, ledger.snapshot()
        if schema is ledger.schema:
            return MemoryLedger(_lock, start=start, schema=schema, rules=ledger.rules)


def refused(parent: Session, fork: Session, error: errors.DspexError) -> errors.DspexError:
    """*error* of the first values of *fork*, said of what the caller knows: of *parent*."""
    here, there = f"session '{fork.id}'", f"a fork of session '{parent.id}'"
    known = {fork.id: parent.id, here: there}
    facts = {
        key: known.get(fact, fact) if isinstance(fact, str) else fact for key, fact in error.facts.items()
    }
    return type(error)(error.message.replace(here, there), **facts)


def writes_back(
    fork: Session, names: Iterable[str] | None, *, force: bool
) -> tuple[tuple[Write, ...], Mapping[str, int]]:
    """
    What setting *names* in the parent to what *fork* has takes; by default those that the fork has set.

    All values are of one revision of the fork. Each write expects the version that the parent had when the
    fork began, or when it last gave that name back. Also returns the versions of the values in the fork.
    """
    given = fork._rarely().given
    began = fork.ledger.own_versions()
    snapshot = fork.snapshot()
    if names is None:
        names = [name for name in began if given.get(name, (0, 0))[0] != snapshot.record(name).version]
    writes = []
    for name in names_of(names):
        record = snapshot.record(name)
        base = given[name][1] if name in given else began.get(name, record.version)
        writes.append(Write(name, record.value, None if force else base))
    return tuple(writes), {write.name: snapshot.record(write.name).version for write in writes}


def note_given(fork: Session, versions: Mapping[str, int], receipt: Receipt) -> None:
    """Remember what the parent has taken, so that giving it again is no conflict with oneself."""
    given = fork._rarely().given
    for change in receipt.changes:
        given[change.name] = (versions[change.name], change.version)

"""What was, as far as the bounded history knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dspex import errors

if TYPE_CHECKING:
    from dspex.session import Session

__all__ = ["value_at", "values_at"]


def value_at(session: Session, name: str, version: int) -> Any:
    """
    The value that *name* had at *version*.

    Raises:
        UnknownRevision: Nobody knows any more.
        InvalidValue: *version* is no integer.
    """
    record = session.record(name)
    if type(version) is not int:
        raise errors.InvalidValue.expecting(f"a version of '{name}', an integer", errors.shown(version)).at(
            "version", session.id
        )
    if version == record.version:
        return record.value
    changes = session.history(name)
    for change in changes:
        if change.version == version:
            return change.value
        if change.version == version + 1:
            return change.old
    oldest = changes[0].version - 1 if changes else record.version
    raise errors.UnknownRevision(
        f"'{name}' in session '{session.id}' has no version {version} to go back to; known are {oldest} to "
        f"{record.version}.",
        name=name,
        session=session.id,
        version=version,
    )


def values_at(session: Session, label: str | None) -> Mapping[str, Any]:
    """The values, of those variables that were set since, at the revision that is tagged *label*."""
    then = session.snapshot(label)
    return {
        name: record.value
        for name, record in then._records.items()
        if session.record(name).version != record.version
    }

"""What a session holds: records, the revision they belong to, and views of many of them at once."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import attrs
import msgspec

from dspex import errors
from dspex.kinds.plain import freeze, thaw

__all__ = ["Record", "Revision", "SessionInfo", "Snapshot", "check_name", "frozen_metadata"]

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_METADATA_BYTES = 16 * 1024


def check_name(name: str) -> str:
    """Return *name* if a variable, tag or claim owner may be called that; else raise `InvalidName`."""
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise errors.InvalidName(
            f"a name must match [A-Za-z_][A-Za-z0-9_.-]{{0,127}} (got {errors.shown(name, 60)}).",
            name=name,
        )
    return name


def frozen_metadata(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """
    A private, read-only copy of *metadata*, which must be plain data with text keys.

    Raises:
        InvalidValue: It holds something that cannot travel.
        LimitExceeded: It takes more than 16 KiB.
    """
    try:
        frozen: Mapping[str, Any] = freeze(dict(metadata))
    except (TypeError, ValueError) as error:
        why = error.expected if isinstance(error, errors.InvalidValue) else "a mapping"
        raise errors.InvalidValue.expecting(why, errors.shown(metadata)).at("metadata") from None
    size = len(msgspec.msgpack.encode(thaw(frozen)))
    if size > _METADATA_BYTES:
        raise errors.LimitExceeded(
            f"metadata takes {size} bytes; the limit is {_METADATA_BYTES}.",
            size=size,
            limit=_METADATA_BYTES,
        )
    return frozen


@attrs.frozen
class Revision:
    """
    A point in the history of a session: `rev` counts commits, `epoch` names the history.

    Two revisions can be compared only within one epoch: a restored store starts another one.
    """

    epoch: str
    rev: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.rev}"

    def reaches(self, other: Revision) -> bool:
        """Whether this revision belongs to the history of *other* and is not before it."""
        return self.epoch == other.epoch and self.rev >= other.rev


class Record(msgspec.Struct, frozen=True, gc=False):
    """
    The state of one variable in a session.

    A struct and not an attrs class, because every `set` makes one (measured: a tenth of the time).
    """

    name: str

    value: Any
    """As its kind stores it."""

    version: int
    """How often the variable was set; 0 is the declared initial value."""

    rev: int
    """The commit that made this record."""

    epoch: str

    source: str | None
    """Who set it."""

    metadata: Mapping[str, Any] | None
    """Why, in the words of who set it."""

    time: float
    """When, in seconds since 1970-01-01 UTC, by the clock of the store."""

    @property
    def revision(self) -> Revision:
        """The point in the session's history at which this record was made."""
        return Revision(self.epoch, self.rev)


@attrs.frozen(eq=False)
class Snapshot(Mapping[str, Any]):
    """
    The values of a whole session at one revision; reads like a dict from name to value.

    It never changes, and costs nothing to hold while the session goes on.
    """

    session: str
    revision: Revision
    _records: Mapping[str, Record] = attrs.field(repr=False)

    @property
    def records(self) -> Mapping[str, Record]:
        """The same, as records."""
        return MappingProxyType(self._records)

    def record(self, name: str) -> Record:
        """The record of *name*; `UnknownVariable` if there is none."""
        try:
            return self._records[name]
        except (KeyError, TypeError):
            raise errors.unknown_variable(
                f"the snapshot of session '{self.session}'", name, self._records
            ) from None

    def __getitem__(self, name: str) -> Any:
        return self.record(name).value

    def __contains__(self, name: object) -> bool:
        return name in self._records

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


@attrs.frozen
class SessionInfo:
    """One line about a session in a store."""

    id: str
    revision: Revision
    variables: int
    created: float
    """Seconds since 1970-01-01 UTC."""

"""The command that stays: watch."""

from __future__ import annotations

from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Annotated

import typer

from dspex import errors
from dspex.changes import EVERY_NAME, Change
from dspex.cli import printing
from dspex.cli.completing import variable_names
from dspex.cli.opening import opened
from dspex.cli.options import Json, SessionId, StoreUrl
from dspex.cli.rendering import change_json, change_line, clock, record_json, short
from dspex.records import Revision, Snapshot
from dspex.session import Session
from dspex.streams import Changes

__all__ = ["watch"]

LOOK = 1.0
"""Seconds between looks at whether there is contact with the server."""


def watch(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME",
            autocompletion=variable_names,
            help="Variables to watch, also with * and ?; without any: all.",
        ),
    ] = None,
    *,
    store: StoreUrl,
    session: SessionId,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="REVISION", help="Begin with what came after this revision."),
    ] = None,
    latest: Annotated[
        bool, typer.Option("--latest", help="If this cannot keep up: only the newest of each variable.")
    ] = False,
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, help="End after N changes.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print changes as they come, until Ctrl-C."""
    with opened(store, session) as handle:
        wanted = _Wanted(handle, names or [])
        start = None if since is None else _revision(handle, since)
        told_from = start or handle.revision
        with handle.changes(wanted.single, mode="latest" if latest else "all", since=start) as changes:
            printing.note(f"watching session '{handle.id}' from revision {told_from}")
            told = 0
            for change in _told(handle, changes):
                if isinstance(change, Snapshot):
                    _print_snapshot(handle, change, wanted, as_json=as_json)
                elif wanted.has(change.name):
                    _print(handle, change, as_json=as_json)
                    told += 1
                    if told == count:
                        return
        _say_why(handle)


class _Wanted:
    """Which names are watched."""

    def __init__(self, session: Session, names: list[str]) -> None:
        self._patterns = names
        for name in names:
            if not set(name) & set("*?["):
                session.record(name)  # or a sentence with the near name
        alone = len(names) == 1 and names[0] in session.variables
        self.single = names[0] if alone else EVERY_NAME
        """What the session is asked for."""

    def has(self, name: str) -> bool:
        """Whether *name* is one of them."""
        return not self._patterns or any(fnmatchcase(name, pattern) for pattern in self._patterns)


def _revision(session: Session, text: str) -> Revision:
    epoch, colon, rev = text.rpartition(":")
    if not rev.isdecimal() or bool(epoch) != bool(colon):
        raise typer.BadParameter(f"'{text}' is no revision: 7, or 1f2e3d4c:7.", param_hint="--since")
    return Revision(epoch or session.revision.epoch, int(rev))


def _told(session: Session, changes: Changes) -> Iterator[Change | Snapshot]:
    """What *changes* yields; in between it is said when there is no contact with the server."""
    contact = _Contact(session)
    while True:
        try:
            change = changes.next(timeout=LOOK)
        except errors.DeadlineExceeded:
            contact.look()
        except StopIteration:
            return
        else:
            contact.look()
            yield change


class _Contact:
    """Says when the server is lost, and when it is found."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lost = False

    def look(self) -> None:
        lost = getattr(self._session.ledger, "status", "LIVE") == "STALE"
        if lost != self._lost:
            self._lost = lost
            printing.note("no contact with the server; waiting for it" if lost else "contact again")


def _print(session: Session, change: Change, *, as_json: bool) -> None:
    kind = session.variables[change.name].kind
    if as_json:
        printing.answer({"event": "change", **change_json(kind, change)})
    else:
        printing.lines([f"{clock(change.time)} {change_line(kind, change)}"])


def _print_snapshot(session: Session, snapshot: Snapshot, wanted: _Wanted, *, as_json: bool) -> None:
    kinds = {name: one.kind for name, one in session.variables.items()}
    records = [record for name, record in snapshot.records.items() if wanted.has(name)]
    if as_json:
        found = [record_json(kinds[record.name], record) for record in records]
        printing.answer({"event": "snapshot", "revision": str(snapshot.revision), "records": found})
        return
    printing.note("the changes since then are not all known any more; this is what is now:")
    printing.lines(f"{record.name} {short(kinds[record.name], record.value)}" for record in records)


def _say_why(session: Session) -> None:
    """Say why there are no more changes, or raise it."""
    try:
        session.snapshot()
    except errors.SessionClosed as error:
        printing.note(error.message)

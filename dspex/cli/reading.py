"""Commands that look: sessions, list, get, history, diff."""

from __future__ import annotations

from typing import Annotated

import typer

from dspex.cli import differences, printing
from dspex.cli.completing import labels, session_ids, variable_names
from dspex.cli.opening import opened, opened_store
from dspex.cli.options import Json, SessionId, StoreUrl
from dspex.cli.rendering import (
    as_typed,
    change_json,
    date,
    declaration_json,
    record_json,
    short,
    why,
)

__all__ = ["diff", "get", "history", "list_", "sessions"]

Name = Annotated[
    str, typer.Argument(metavar="NAME", autocompletion=variable_names, help="A variable of the session.")
]
SomeName = Annotated[
    str | None,
    typer.Argument(
        metavar="NAME", autocompletion=variable_names, help="One variable only.", show_default=False
    ),
]


def sessions(*, store: StoreUrl, as_json: Json = False) -> None:
    """List the sessions of a store."""
    with opened_store(store) as there:
        infos = there.sessions()
    if as_json:
        return printing.answer(
            [
                {
                    "id": info.id,
                    "revision": str(info.revision),
                    "variables": info.variables,
                    "created": info.created,
                }
                for info in infos
            ]
        )
    return printing.table(
        ["session", "variables", "revision", "created"],
        ([info.id, str(info.variables), str(info.revision), date(info.created)] for info in infos),
    )


def list_(*, store: StoreUrl, session: SessionId, as_json: Json = False) -> None:
    """List the variables of a session with their values."""
    with opened(store, session) as handle:
        snapshot, declared = handle.snapshot(), handle.variables
        found = [(snapshot.record(name), one) for name, one in declared.items() if name in snapshot]
    if as_json:
        return printing.answer(
            [record_json(one.kind, record) | declaration_json(one) for record, one in found]
        )
    return printing.table(
        ["variable", "value", "version", "set by", "kind"],
        (
            [
                record.name,
                short(one.kind, record.value),
                str(record.version),
                record.source or "",
                repr(one.kind),
            ]
            for record, one in found
        ),
    )


def get(name: Name, *, store: StoreUrl, session: SessionId, as_json: Json = False) -> None:
    """Print the value of a variable, as `set` takes it."""
    with opened(store, session) as handle:
        record = handle.record(name)
        kind = handle.variables[name].kind
    if as_json:
        return printing.answer(record_json(kind, record))
    return printing.value(as_typed(kind, record.value))


def history(
    name: SomeName = None,
    *,
    store: StoreUrl,
    session: SessionId,
    limit: Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="The last N only.")] = None,
    as_json: Json = False,
) -> None:
    """Print the changes that are still known, oldest first."""
    with opened(store, session) as handle:
        if name is not None:
            handle.record(name)
        changes = handle.history(name)[-limit if limit is not None else 0 :]
        kinds = {one: declared.kind for one, declared in handle.variables.items()}
    if as_json:
        return printing.answer([change_json(kinds[change.name], change) for change in changes])
    return printing.table(
        ["time", "variable", "version", "old", "new", "set by", "why"],
        (
            [
                date(change.time),
                change.name,
                str(change.version),
                short(kinds[change.name], change.old),
                short(kinds[change.name], change.value),
                change.source or "",
                why(change),
            ]
            for change in changes
        ),
    )


def diff(
    before: Annotated[
        str | None,
        typer.Argument(metavar="FROM", autocompletion=labels, help="A tag, or with --name a version."),
    ] = None,
    after: Annotated[
        str | None,
        typer.Argument(metavar="TO", autocompletion=labels, help="The same; without it: what is now."),
    ] = None,
    *,
    store: StoreUrl,
    session: SessionId,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", autocompletion=variable_names, help="One variable only."),
    ] = None,
    other: Annotated[
        str | None,
        typer.Option("--other", metavar="ID", autocompletion=session_ids, help="The session that TO is of."),
    ] = None,
    other_store: Annotated[
        str | None, typer.Option("--other-store", metavar="URL", help="The store of that session.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print what differs between two versions, tags or sessions."""
    if before is None and other is None and other_store is None:
        raise typer.BadParameter("give FROM, or --other to compare with.", param_hint="FROM")
    with opened(store, session) as one:
        was = differences.point(one, before, name)
    with opened(other_store or store, other or session) as one:
        now = differences.point(one, after, name)
    found = differences.between(was, now)
    if as_json:
        return printing.answer([difference.as_json() for difference in found])
    for difference in found:
        printing.lines(difference.lines())
    return None

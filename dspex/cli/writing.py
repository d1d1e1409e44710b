"""Commands that change a session: set, rollback, tag."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from dspex import errors
from dspex.cli import printing
from dspex.cli.arguments import Assignments, expected_versions
from dspex.cli.completing import assignments, labels, variable_names
from dspex.cli.opening import opened
from dspex.cli.options import Json, SessionId, Source, StoreUrl, user
from dspex.cli.rendering import change_json, change_line
from dspex.commits import Receipt
from dspex.session import Session

__all__ = ["rollback", "set_", "tag"]


def set_(
    values: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=VALUE",
            autocompletion=assignments,
            help="A value as its kind reads it; @FILE is what a file has, - what stdin has.",
        ),
    ],
    *,
    store: StoreUrl,
    session: SessionId,
    source: Source = None,
    reason: Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why.")] = None,
    metadata: Annotated[
        str | None, typer.Option("--metadata", metavar="JSON", help="More of why: a JSON object.")
    ] = None,
    expect: Annotated[
        list[str] | None,
        typer.Option(
            "--expect",
            metavar="[NAME=]VERSION",
            help="Set only if the variable is at this version; may be given once for each name.",
        ),
    ] = None,
    literal: Annotated[
        bool, typer.Option("--literal", help="Take values as they are, also @FILE and -.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Set variables: all of them in one commit, or none."""
    given = Assignments.read(values, literal=literal)
    because = _metadata(reason, metadata)
    versions = expected_versions(expect or (), list(given))
    with opened(store, session, source or user()) as handle:
        receipt = handle.update(given.parsed(handle), because, expect=versions)
        _say(handle, receipt, as_json=as_json)


def _metadata(reason: str | None, metadata: str | None) -> dict[str, Any] | None:
    because: dict[str, Any] = {} if reason is None else {"reason": reason}
    if metadata is not None:
        try:
            more = json.loads(metadata)
        except ValueError:
            more = None
        if not isinstance(more, dict):
            raise typer.BadParameter(
                f"{errors.shown(metadata, 60)} is no JSON object.", param_hint="--metadata"
            )
        because |= more
    return because or None


def _say(session: Session, receipt: Receipt, *, as_json: bool) -> None:
    changes = [(session.variables[change.name].kind, change) for change in receipt.changes]
    if as_json:
        printing.answer(
            {
                "session": session.id,
                "revision": str(receipt.revision),
                "changes": [change_json(kind, change) for kind, change in changes],
            }
        )
    else:
        printing.lines(change_line(kind, change) for kind, change in changes)


def rollback(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", autocompletion=variable_names, help="The variable to set back."),
    ] = None,
    version: Annotated[
        int | None, typer.Argument(metavar="VERSION", help="To what it was at this version.")
    ] = None,
    *,
    store: StoreUrl,
    session: SessionId,
    to: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="TAG", autocompletion=labels, help="Everything to what it was at a tag."
        ),
    ] = None,
    source: Source = None,
    as_json: Json = False,
) -> None:
    """Set a variable to an older version, or everything to a tag."""
    if (name is None) == (to is None) or (name is None) != (version is None):
        raise typer.BadParameter("give NAME and VERSION, or --to TAG.", param_hint="NAME")
    with opened(store, session, source or user()) as handle:
        _say(handle, handle.rollback(name, version, to=to), as_json=as_json)


def tag(
    label: Annotated[
        str | None,
        typer.Argument(metavar="TAG", autocompletion=labels, help="The label; without one all are listed."),
    ] = None,
    *,
    store: StoreUrl,
    session: SessionId,
    source: Source = None,
    as_json: Json = False,
) -> None:
    """Give the present revision a label, or list the labels."""
    with opened(store, session, source or user()) as handle:
        tags = dict(handle.tags) if label is None else {label: handle.tag(label)}
    if as_json:
        printing.answer({one: str(revision) for one, revision in tags.items()})
    else:
        printing.table(["tag", "revision"], ([one, str(revision)] for one, revision in tags.items()))

"""Commands that take a session elsewhere: export, import, copy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from dspex import errors
from dspex.cli import printing
from dspex.cli.completing import session_ids
from dspex.cli.opening import made_store, opened, opened_store
from dspex.cli.options import Json, SessionId, StoreUrl, user

__all__ = ["copy", "export", "import_"]

NewId = Annotated[str | None, typer.Option("--as", metavar="ID", help="The id there, if not the same.")]


def export(
    *,
    store: StoreUrl,
    session: SessionId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="A file to write to, not stdout.")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="With the changes, as far as they are kept.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print a session as a JSON document, without secrets."""
    from dspex.moving import export_session

    with opened(store, session) as handle:
        document = export_session(handle, history=history)
    if output is None:
        return printing.value(document.removesuffix("\n"))
    # Prompts and reasons are not for everybody either: the file is its owner's.
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(document)
    if as_json:
        printing.answer({"session": session, "file": str(output)})
    else:
        printing.lines([f"{session} is in {output}"])
    return None


def import_(
    document: Annotated[
        typer.FileBinaryRead, typer.Argument(metavar="FILE", help="What `export` has written; - for stdin.")
    ],
    *,
    store: StoreUrl,
    as_id: NewId = None,
    into: Annotated[
        str | None,
        typer.Option(
            "--into",
            metavar="ID",
            autocompletion=session_ids,
            help="Set what differs in this session, which is there, and make none.",
        ),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", metavar="WHO", help="Who sets, with --into.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a session of a document, or set what it says in one."""
    from dspex.moving import import_session

    if into is None and source is not None:
        raise typer.BadParameter("a new session has the authors of the document; --source goes with --into.")
    if into is not None and as_id is not None:
        raise typer.BadParameter("--as is the id of a new session, --into that of one that is there.")
    text = document.read()
    if into is None:
        with made_store(store) as target:
            imported = import_session(text, target, as_id=as_id)
            imported.session.close()
    else:
        with opened(store, into, source or user()) as handle:
            imported = import_session(text, handle)
    if as_json:
        printing.answer(
            {
                "session": imported.session.id,
                "revision": str(imported.revision),
                "secrets": list(imported.secrets),
            }
        )
        return
    printing.lines([f"{imported.session.id} is at revision {imported.revision}"])
    if imported.secrets:
        printing.note(f"the document does not have what is secret: {', '.join(imported.secrets)}")


def copy(
    session: Annotated[
        str, typer.Argument(metavar="SESSION", autocompletion=session_ids, help="The session to copy.")
    ],
    *,
    store: Annotated[
        str, typer.Option("--from", metavar="URL", envvar="DSPEX_STORE", help="The store that has it.")
    ],
    to: Annotated[str, typer.Option("--to", metavar="URL", help="The store that is to have it.")],
    as_id: NewId = None,
    as_json: Json = False,
) -> None:
    """Copy a session to another store: values, versions, history, tags."""
    from dspex import moving

    with (
        opened_store(store) as source,
        made_store(to) as target,
        moving.copy(session, source, target, as_id=as_id) as made,
    ):
        copied, revision, shown = made.id, str(made.revision), errors.without_login(to)
    if as_json:
        printing.answer({"session": copied, "store": shown, "revision": revision})
    else:
        printing.lines([f"{copied} is in {shown} at revision {revision}"])

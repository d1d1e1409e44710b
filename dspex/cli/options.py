"""The options that commands share."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from dspex.cli.completing import session_ids

__all__ = ["JSON", "Json", "SessionId", "Source", "StoreUrl", "user"]

JSON = "dspex.json"
"""Where the context of a command keeps whether it prints JSON."""


def _note_json(context: typer.Context, value: bool) -> bool:
    context.meta[JSON] = value
    return value


StoreUrl = Annotated[
    str,
    typer.Option("--store", metavar="URL", envvar="DSPEX_STORE", help="Where the sessions are."),
]
SessionId = Annotated[
    str,
    typer.Option(
        "--session",
        metavar="ID",
        envvar="DSPEX_SESSION",
        autocompletion=session_ids,
        help="Which of them.",
    ),
]
Source = Annotated[
    str | None,
    typer.Option("--source", metavar="WHO", envvar="DSPEX_SOURCE", help="Who sets; else who is logged in."),
]
Json = Annotated[bool, typer.Option("--json", callback=_note_json, help="Print JSON.")]


def user() -> str | None:
    """Who sets when the command line does not say: as the environment has it, or who is logged in."""
    import getpass

    try:
        return os.environ.get("DSPEX_SOURCE") or getpass.getuser()
    except (KeyError, OSError):  # a user without a name: the session finds one
        return None

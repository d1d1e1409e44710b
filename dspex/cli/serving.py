"""Commands of whoever runs a server: serve, token."""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from dspex.cli import printing
from dspex.cli.options import Json, StoreUrl

__all__ = ["serve", "token"]


def serve(
    *,
    store: StoreUrl,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="ADDRESS",
            help="unix:///path, or host:port with TLS and tokens; without it a new private socket.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option("--tls-cert", metavar="FILE", exists=True, dir_okay=False, help="The certificate, PEM."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option("--tls-key", metavar="FILE", exists=True, dir_okay=False, help="Its private key, PEM."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Who may do what: lines that `dspex token` makes.",
        ),
    ] = None,
    grace: Annotated[
        float, typer.Option("--grace", metavar="SECONDS", min=0.0, help="For what runs when it is ended.")
    ] = 5.0,
    as_json: Json = False,
) -> None:
    """Serve the sessions of a store to other processes, until Ctrl-C."""
    from dspex import rpc
    from dspex.rpc.auth import read_tokens
    from dspex.rpc.listening import Tls

    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together.")

    def ready(server: rpc.Server) -> None:
        if as_json:
            printing.answer({"store": store, "url": server.url, "pid": os.getpid()})
        else:
            printing.lines([f"process {os.getpid()} serves {store} at {server.url}"])

    rpc.serve(
        store,
        listen,
        tokens=() if token_file is None else read_tokens(token_file),
        tls=None if tls_cert is None or tls_key is None else Tls(tls_cert, tls_key),
        grace=grace,
        ready=ready,
    )


def token(
    grants: Annotated[
        list[str],
        typer.Argument(metavar="GRANT", help="What it lets do: SESSION=VERB,VERB with * and ? in SESSION."),
    ],
    *,
    add_to: Annotated[
        Path,
        typer.Option("--add-to", metavar="FILE", dir_okay=False, help="The server's token file."),
    ],
    expires: Annotated[
        datetime | None,
        typer.Option("--expires", metavar="TIME", help="When it ends: 2027-01-31, or with T12:00:00."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a token: its secret is printed, its grants go to a file."""
    from dspex.rpc.auth import new_token, token_line

    secret, made = new_token(*grants, expires=None if expires is None else expires.timestamp())
    descriptor = os.open(add_to, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "a") as file:
        file.write(f"{token_line(made)}\n")
    if as_json:
        printing.answer({"secret": secret, "grants": list(map(str, made.grants)), "expires": made.expires})
    else:
        printing.lines([secret])

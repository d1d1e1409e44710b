"""Commands of whoever runs a server: serve, token."""

from __future__ import annotations

import os
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from dspex import errors
from dspex.cli import printing
from dspex.cli.options import Json, StoreUrl
from dspex.cli.running import importable

__all__ = ["serve", "token"]

WORKERS = 2
"""How many processes run programs."""


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
    programs: Annotated[
        list[str] | None,
        typer.Option(
            "--program",
            metavar="MODULE:CLASS",
            help="A program that clients may run here; may be given several times.",
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", metavar="N", min=1, help=f"Processes that run them; {WORKERS}."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve the sessions of a store to other processes, and run programs for them, until Ctrl-C."""
    from dspex import rpc
    from dspex.rpc.auth import read_tokens
    from dspex.rpc.listening import Tls

    if workers is not None and not programs:
        raise typer.BadParameter(
            "there is nothing for workers to run: give --program.", param_hint="--workers"
        )
    if (tls_cert is None) != (tls_key is None):
        raise typer.BadParameter("--tls-cert and --tls-key go together.")

    shown = errors.without_login(store)

    def ready(server: rpc.Server) -> None:
        if as_json:
            more = {"programs": programs, "workers": workers or WORKERS} if programs else {}
            printing.answer({"store": shown, "url": server.url, "pid": os.getpid(), **more})
        else:
            printing.lines([f"process {os.getpid()} serves {shown} at {server.url}"])
            if programs:
                printing.lines([f"workers: {workers or WORKERS}, programs: {', '.join(programs)}"])

    settings: dict[str, Any] = {
        "tokens": () if token_file is None else read_tokens(token_file),
        "tls": None if tls_cert is None or tls_key is None else Tls(tls_cert, tls_key),
        "grace": grace,
        "ready": ready,
    }
    if not programs:
        rpc.serve(store, listen, **settings)
        return
    from dspex.pool import Pool
    from dspex.pool.serving import serve_programs

    with importable():
        # A session is everybody's here: its calls take whoever is free.
        pool = Pool(programs, workers=workers or WORKERS, affinity="hint")
        serve_programs(store, pool, listen, **settings)


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

    if expires is not None and expires.timestamp() <= time.time():
        raise typer.BadParameter(f"{expires:%Y-%m-%d %H:%M:%S} is over.", param_hint="--expires")
    secret, made = new_token(*grants, expires=None if expires is None else expires.timestamp())
    descriptor = os.open(add_to, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "a") as file:
        file.write(f"{token_line(made)}\n")
    if as_json:
        printing.answer({"secret": secret, "grants": list(map(str, made.grants)), "expires": made.expires})
    else:
        printing.lines([secret])

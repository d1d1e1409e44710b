"""All commands, and how they fail."""

from __future__ import annotations

import errno
import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import dspex
from dspex import errors
from dspex.cli import doctor, moving, optimizing, printing, reading, running, serving, watching, writing
from dspex.cli.exits import REFUSED, UNREAD, exit_code
from dspex.cli.options import JSON

__all__ = ["app"]


class _Commands(TyperGroup):
    """Turns what dspex refuses into one sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except errors.DspexError as error:
            printing.refuse(error, as_json=ctx.meta.get(JSON, False))
            raise typer.Exit(exit_code(error)) from None
        except OSError as error:
            if error.errno == errno.EPIPE:
                # What is flushed at the end of the process would complain again.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
                raise typer.Exit(UNREAD) from None
            if error.filename is None:
                raise
            printing.note(f"{error.filename}: {error.strerror}.")
            raise typer.Exit(REFUSED) from None


app = typer.Typer(
    cls=_Commands,
    help="Live variables of running programs: look at them, set them, watch them, serve them, tune them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    # Boxes and colours are for eyes: what is piped somewhere is plain.
    rich_markup_mode="rich" if sys.stdout.isatty() and sys.stderr.isatty() else None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        printing.lines([dspex.__version__])
        raise typer.Exit


@app.callback()
def _about(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


for command in (
    serving.serve,
    serving.token,
    running.run,
    reading.sessions,
    reading.list_,
    reading.get,
    writing.set_,
    watching.watch,
    reading.history,
    reading.diff,
    writing.rollback,
    writing.tag,
    moving.export,
    moving.import_,
    moving.copy,
    optimizing.optimize,
    optimizing.trials,
    doctor.doctor,
):
    app.command(command.__name__.rstrip("_"))(command)

"""The command that runs a program: run."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer

from dspex import errors
from dspex.cli import printing
from dspex.cli.arguments import Assignments, fetched
from dspex.cli.completing import session_ids
from dspex.cli.exits import REFUSED, USAGE
from dspex.cli.opening import made_store, opened
from dspex.cli.options import Json, Source, user
from dspex.cli.rendering import output_json, output_text
from dspex.session import Session

__all__ = ["importable", "run"]

END = object()
"""What stands for the end of the pieces."""

_CALLED = re.compile(r"(\S+\.)?a?forward\(\) (missing|takes) ")
_FRAME = re.compile(r'^  File "(.+)", line \d+', re.MULTILINE)


def run(
    context: typer.Context,
    program: Annotated[
        str, typer.Argument(metavar="MODULE:CLASS", help="The program, as Python would import it.")
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT", help="Text for its forward; @FILE is what a file has, - what stdin has."
        ),
    ] = None,
    *,
    server: Annotated[
        str | None,
        typer.Option(
            "--server", metavar="URL", help="Run it there, where `dspex serve --program` serves it."
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", envvar="DSPEX_STORE", help="Where the session is."),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="ID",
            envvar="DSPEX_SESSION",
            autocompletion=session_ids,
            help="Where its values are; without it they are the initial ones.",
        ),
    ] = None,
    values: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="Set this first; may be given several times."),
    ] = None,
    source: Source = None,
    pin: Annotated[bool, typer.Option("--pin", help="Let all reads come from one revision.")] = False,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0.0, help="What it may take.")
    ] = None,
    literal: Annotated[
        bool, typer.Option("--literal", help="Take inputs and values as they are, also @FILE and -.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run a program, here or at a server, and print what it gives as it comes."""
    if server or session is None:
        asked = context.get_parameter_source("store")
        if asked is not None and asked.name == "COMMANDLINE":
            raise typer.BadParameter("it goes with --session, and not with --server.", param_hint="--store")
    elif store is None:
        raise typer.BadParameter("it is in a --store, or at a --server.", param_hint="--session")
    order = _Order(
        program,
        tuple(inputs or ()) if literal else tuple(map(fetched, inputs or ())),
        session,
        Assignments.read(values or (), literal=literal),
        source or user(),
        {"pin": pin, "timeout": timeout},
    )
    if server and order.changes and session is None:
        raise typer.BadParameter("a private session cannot be set there: give --session.", param_hint="--set")
    pieces = _here(order, store) if server is None else _there(order, server)
    try:
        _print(_of_program(pieces, aside=as_json), as_json=as_json)
    except _Raised as raised:
        if _is_of_inputs(raised.error):
            said = f"{program} does not take these inputs: {raised.error}."
            printing.refuse(errors.InvalidCall(said, program=program), as_json=as_json)
            raise typer.Exit(USAGE) from None
        _tell(raised.error, as_json=as_json)
        raise typer.Exit(REFUSED) from None


@attrs.frozen
class _Order:
    """What is to be run, and how."""

    program: str
    inputs: tuple[str, ...]
    session: str | None
    changes: Assignments
    source: str | None
    how: dict[str, Any]


def _here(order: _Order, store: str | None) -> Generator[Any]:
    from dspex.pool.programs import load
    from dspex.pool.values import values_of

    with importable():
        cls: Any = load(order.program)
        private = order.session is None or store is None
        with (
            nullcontext("memory://") if private else made_store(str(store)) as where,
            Session(order.session, store=where, source=order.source) as session,
        ):
            cls.bind(session)
            if order.changes:
                session.update(order.changes.parsed(session))
            for piece in cls.stream(*order.inputs, session=session, **order.how):
                values_of(cls).pack(piece, f"what {cls.__name__} gives")  # what is printed could also travel
                yield piece


def _there(order: _Order, server: str) -> Generator[Any]:
    from dspex.pool.serving import RemotePrograms

    if order.changes:
        with opened(server, str(order.session), order.source) as session:
            session.update(order.changes.parsed(session))
    with RemotePrograms(server) as there:
        yield from there.stream(order.program, *order.inputs, session=order.session or "", **order.how)


class _Raised(Exception):
    """A program has raised *error*."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _of_program(pieces: Generator[Any], *, aside: bool) -> Iterator[Any]:
    """The pieces; what the program itself prints goes *aside*, to stderr."""
    with closing(pieces):
        while True:
            try:
                with redirect_stdout(sys.stderr) if aside else nullcontext():
                    piece = next(pieces, END)
            except errors.DspexError:
                raise
            except Exception as error:
                raise _Raised(error) from None
            if piece is END:
                return
            yield piece


def _is_of_inputs(error: Exception) -> bool:
    """Whether `forward` itself was called wrongly, here or there: then nothing of the program's has run."""
    if not isinstance(error, TypeError) or _CALLED.match(str(error)) is None:
        return False
    here = [one.filename for one in traceback.extract_tb(error.__traceback__)]
    there = [frames for note in getattr(error, "__notes__", ()) if (frames := _FRAME.findall(note))]
    innermost = Path(*[*there, here][0][-1:])  # of a worker's the first note tells, of a server's the next
    return innermost.parent.name == "dspex" and innermost.name in ("runs.py", "streaming.py")


@contextmanager
def importable() -> Iterator[None]:
    """Let programs be imported from the directory in which the command was given, as `python -m` would."""
    here = os.getcwd()  # noqa: PTH109 - as sys.path has it
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)


def _print(pieces: Iterable[Any], *, as_json: bool) -> None:
    """Text as it comes, one piece after the other; of anything else each piece on a line."""
    within = False
    try:
        for piece in pieces:
            if as_json:
                printing.answer({"output": output_json(piece)})
            elif isinstance(piece, str):
                printing.more(piece)
                within = not piece.endswith("\n") if piece else within
            else:
                if within:
                    printing.more("\n")
                    within = False
                printing.lines([output_text(piece)])
    finally:
        if within:
            printing.more("\n")


def _tell(error: Exception, *, as_json: bool) -> None:
    """What the program raised, with the traceback: who started it is who has to mend it."""
    kind = type(error)
    if not as_json:
        traceback.print_exception(error)
        return
    text = "".join(traceback.format_exception(error))
    said = errors.ProgramError(
        f"{kind.__qualname__}: {error}", type=f"{kind.__module__}.{kind.__qualname__}", traceback=text
    )
    printing.refuse(said, as_json=True)

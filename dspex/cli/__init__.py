"""
The command line: `dspex`, and `python -m dspex`.

It prints and decides nothing: what a command does is done by sessions, stores and servers.
"""

from __future__ import annotations

import sys

from dspex import errors

__all__ = ["main"]


def main() -> None:
    """Run the command that the arguments of this process name, and end the process with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        # A value may have characters that this terminal has no bytes for.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    try:
        from dspex.cli.app import app

        app(prog_name="dspex")
    except ModuleNotFoundError as error:
        if str(error.name).partition(".")[0] not in ("packaging", "rich", "typer"):
            raise
        sys.stderr.write(f"{errors.missing_extra('Commands', 'cli')}\n")
        raise SystemExit(1) from None
    except KeyboardInterrupt:  # while all that was imported
        raise SystemExit(130) from None

"""`python -m dspex.optimizers optimize …` and `python -m dspex.optimizers trials …`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from dspex import errors
from dspex.optimizers import commands
from dspex.optimizers.optuna_search import DEFAULT_STORAGE

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the *arguments* say; 0 if it was done, 1 with a sentence if it was refused."""
    parser = argparse.ArgumentParser(prog="python -m dspex.optimizers", description=commands.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    optimize = verbs.add_parser("optimize", help="search for better values, and commit the best")
    optimize.add_argument("program", help="package.module:Program")
    optimize.add_argument("--data", required=True, help="examples: .jsonl, .json or .csv")
    optimize.add_argument("--metric", required=True, help="package.module:metric")
    optimize.add_argument("--val", help="examples that trials are scored on instead")
    optimize.add_argument("--trials", type=int, default=40)
    optimize.add_argument("--optimizer", choices=commands.OPTIMIZERS, default="optuna")
    optimize.add_argument("--session", help="its id in the store; by default a private one")
    optimize.add_argument("--store", default="memory://")
    optimize.add_argument("--study", help="go on with the study of that name")
    optimize.add_argument("--storage", default=DEFAULT_STORAGE, help="where trials are kept")
    optimize.add_argument("--seconds", type=float, help="the time that it may take")
    optimize.add_argument("--screen", type=int, default=8, help="examples after which to give up")
    optimize.add_argument("--seed", type=int, default=0)
    optimize.add_argument("--dry-run", action="store_true", help="say what would be searched")
    optimize.add_argument("--report", help="write an HTML report there")
    trials = verbs.add_parser("trials", help="the studies of a storage, or the trials of one")
    trials.add_argument("study", nargs="?")
    trials.add_argument("--storage", default=DEFAULT_STORAGE)
    options = vars(parser.parse_args(arguments))
    verb = getattr(commands, options.pop("verb"))
    try:
        first = options.pop("program" if verb is commands.optimize else "study")
        done: int = verb(first, **options)
    except errors.DspexError as error:
        print(error, file=sys.stderr)  # noqa: T201  it is a command
        return 1
    except KeyboardInterrupt:
        said = "Stopped. Give the same --study to go on; the session is as it was."
        print(said, file=sys.stderr)  # noqa: T201
        return 130
    return done


if __name__ == "__main__":
    sys.exit(main())

"""
Breaks dspex on purpose, once in each way of the table, and shows that a test notices.

    python tests/mutants/run.py [name …]

A mutant is a change of one place in one file. It is made in a copy of the tree in a temporary directory; the
named test must fail there, and pass where nothing was changed. A mutant that no test notices, or whose place
is no longer in the file, ends the command with 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import attrs
from redis_table import REDIS_MUTANTS
from table import MUTANTS as OTHERS
from table import Mutant

MUTANTS = (*OTHERS, *REDIS_MUTANTS)
ROOT = Path(__file__).parents[2]
COPIED = ("dspex", "tests", "pyproject.toml")
DEADLINE = 300

CAUGHT, SURVIVED, STALE = "caught", "SURVIVED", "STALE"


@attrs.frozen
class Verdict:
    """What became of one mutant."""

    mutant: Mutant
    word: str
    seconds: float
    output: str = ""


def copied(target: Path) -> None:
    """Copy what the tests need."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(source, target / name)


def passes(tree: Path, *tests: str) -> tuple[bool, str]:
    """Whether *test* passes in *tree*, and what pytest printed."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-W", "error", "-p", "no:cacheprovider", *tests]
    environment = os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("DSPEX_SOAK", None)
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, "hangs"
    if done.returncode not in (0, 1):
        raise SystemExit(f"{tests} could not be run:\n{done.stdout}{done.stderr}")
    return done.returncode == 0, done.stdout


def tried(mutant: Mutant) -> Verdict:
    """Make *mutant* and run its test."""
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        tree = Path(directory)
        copied(tree)
        file = tree / mutant.file
        text = file.read_text()
        if text.count(mutant.old) != 1:
            return Verdict(mutant, STALE, 0.0, f"{mutant.file} has its place {text.count(mutant.old)} times")
        file.write_text(text.replace(mutant.old, mutant.new))
        passed, output = passes(tree, mutant.test)
    return Verdict(mutant, SURVIVED if passed else CAUGHT, time.monotonic() - begin, output)


def say(line: str) -> None:
    """Print *line* now."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="name", help="which; all if none is named")
    parser.add_argument("--list", action="store_true", help="print the names and what each breaks")
    parser.add_argument("--show", action="store_true", help="print what pytest said")
    options = parser.parse_args()
    known = {mutant.name: mutant for mutant in MUTANTS}
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"no mutant is called {', '.join(unknown)}; --list names them")
    chosen = [known[name] for name in options.names] or list(MUTANTS)
    if options.list:
        for mutant in chosen:
            say(f"{mutant.name:24} {mutant.breaks}")
        return 0
    with tempfile.TemporaryDirectory() as directory:
        copied(Path(directory))
        passed, output = passes(Path(directory), *sorted({mutant.test for mutant in chosen}))
    if not passed:
        raise SystemExit(f"{output}\nA test fails without a mutant: nothing can be shown.")
    caught = 0
    for mutant in chosen:
        verdict = tried(mutant)
        caught += verdict.word == CAUGHT
        say(f"{verdict.word:9} {mutant.name:24} {verdict.seconds:6.1f} s  {mutant.test}")
        if options.show or verdict.word != CAUGHT:
            say(verdict.output)
    say(f"{caught} of {len(chosen)} caught")
    return 0 if caught == len(chosen) else 1


if __name__ == "__main__":
    raise SystemExit(main())

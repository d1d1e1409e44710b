"""Rows that take a fresh process each: the memory of many, and imports."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import memory
from memory import MEMORY
from timing import AGAIN, Goal, Row

import dspex

__all__ = ["CORE", "MEMORY_GOALS", "import_rows", "memory_rows"]

CORE = "attrs, cattrs, blinker and msgspec: what dspex requires"
IMPORTS = {
    CORE: "import attrs, cattrs, blinker, msgspec",
    AGAIN: "import attrs, cattrs, blinker, msgspec",
    "dspex": "import dspex",
    "nothing: Python itself": "pass",
    "traitlets": "import traitlets",
    "param": "import param",
    "psygnal": "import psygnal",
    "pydantic, a model": "from pydantic import BaseModel",
}

MEMORY_GOALS = (
    Goal("dspex session, no value of its own", 256),
    Goal("dspex fork, no value of its own", 256),
    Goal("dspex fork, 1 of 10 its own", 640),
    Goal("dspex session in which a program was bound, 1 of 10 its own", 640),
    Goal("dspex fork, 1 of 10 its own", 6.5e6, times=10_000),
)


def _environment() -> dict[str, str]:
    """Of a process that imports the dspex that this one did, whatever else Python was told."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    return kept | {"PYTHONPATH": str(Path(dspex.__file__).parents[1])}


def import_rows(folder: str) -> Iterator[Row]:
    """
    The processor time of a whole process that imports and ends, in the empty *folder*, where all of them have
    their bytecode.

    Compiling is not part of it: each has run once before.
    """
    environment = _environment() | {"PYTHONPYCACHEPREFIX": folder}

    def row(label: str, code: str) -> Row:
        def run() -> float:
            process = subprocess.Popen([sys.executable, "-c", code], env=environment, cwd=folder)
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                raise SystemExit(f"{code!r} failed")
            return used.ru_utime + used.ru_stime

        run()
        return Row(label, run)

    return (row(label, code) for label, code in IMPORTS.items())


def memory_rows() -> Iterator[Row]:
    """The resident bytes of one of many."""

    def row(label: str) -> Row:
        command = [sys.executable, memory.__file__, label]

        def run() -> float:
            done = subprocess.run(command, env=_environment(), check=True, capture_output=True, text=True)
            return float(done.stdout)

        return Row(label, run)

    return map(row, MEMORY)

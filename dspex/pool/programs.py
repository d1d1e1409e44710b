"""Programs by name: what travels to a worker is where to import one from."""

from __future__ import annotations

import importlib
import runpy
import sys
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from dspex import errors
from dspex.program import Program, ProgramType

__all__ = ["MAIN", "has_main", "import_main", "load", "main_script", "name_of", "named", "of_main"]

MAIN = "__mp_main__"
"""What a worker calls the script that was started in the first process, as `multiprocessing` does."""


def name_of(program: Any) -> str:
    """
    `package.module:Class`, from where a worker imports *program*, which may be that name already.

    Raises:
        UnknownProgram: No other process could import it from there.
    """
    if isinstance(program, str):
        module, colon, name = program.partition(":")
        if not (colon and module and name):
            raise errors.UnknownProgram(
                f"a program is named package.module:Class (got {errors.shown(program, 80)}).", program=program
            )
        return program
    if not isinstance(program, ProgramType):
        raise errors.UnknownProgram(
            f"a pool runs Program classes (got {errors.shown(program, 80)}).", program=program
        )
    module, name = program.__module__, program.__qualname__
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if found is not program:
        raise errors.UnknownProgram(
            f"{name} cannot be imported by a worker: module {module} has no {name} at its top. Move the "
            "class out of the function that makes it.",
            program=name,
        )
    if module == "__main__" and main_script() is None:
        raise errors.UnknownProgram(
            f"{name} cannot be imported by a worker: this Python was not started from a file. Put the class "
            "into a module.",
            program=name,
        )
    return f"{module}:{name}"


def named(programs: Iterable[Any]) -> Mapping[str, None]:
    """
    The names of *programs*, each once.

    Raises:
        UnknownProgram: One cannot be imported, or there is none.
    """
    if isinstance(programs, str | ProgramType):
        programs = [programs]
    names = dict.fromkeys(map(name_of, programs))
    if not names:
        raise errors.UnknownProgram("a pool needs programs to run: Pool([ResearchAgent]).", program=None)
    return names


def load(name: str) -> type[Program]:
    """
    Import the program of that name.

    Raises:
        UnknownProgram: There is none; importing it may raise anything else.
    """
    module, _, path = name_of(name).partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise errors.UnknownProgram(f"{name} cannot be imported: {error}.", program=name) from None
    for part in path.split("."):
        if not hasattr(found, part):
            raise errors.UnknownProgram(
                f"module {module} has no {path}.{errors.did_you_mean(path, list(vars(found)))}", program=name
            )
        found = getattr(found, part)
    if not isinstance(found, ProgramType):
        raise errors.UnknownProgram(
            f"{name} must be a Program (got {errors.shown(found, 80)}).", program=name
        )
    program: Any = found
    return program  # type: ignore[no-any-return]


def main_script() -> tuple[str, str] | None:
    """How a worker gets the script of this process: (`module`, its name) or (`path`, its file)."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name != "__main__":
        return "module", spec.name
    path = getattr(main, "__file__", None)
    return None if path in (None, "<stdin>") else ("path", path)


def of_main(names: Iterable[str]) -> bool:
    """Whether one of the programs of those *names* is in the script of this process."""
    return any(name.startswith("__main__:") for name in names)


def has_main() -> bool:
    """Whether the script of the first process was run in this one, or in the one that this is a fork of."""
    return sys.modules["__main__"].__name__ == MAIN


def import_main(how: str, what: str) -> None:
    """Run the script of the first process in this one, under another name, so that its classes are here."""
    module = ModuleType(MAIN)
    sys.modules[MAIN] = sys.modules["__main__"] = module
    if how == "module":
        vars(module).update(runpy.run_module(what, run_name=MAIN, alter_sys=True))
    else:
        vars(module).update(runpy.run_path(what, run_name=MAIN))
    sys.modules[MAIN] = sys.modules["__main__"] = module

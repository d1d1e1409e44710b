"""Objects that a command line names: `package.module:name`."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from dspex import errors
from dspex.program import Program

__all__ = ["named", "named_program"]


def named(spec: str, what: str) -> Any:
    """
    The object that *spec* names; modules of the working directory are found, too.

    Raises:
        InvalidValue: There is no such module, or nothing of that name in it; *what* is the subject then.
    """
    module, _, name = spec.partition(":")
    if not module or not name:
        raise errors.InvalidValue.expecting("spelled package.module:name", errors.shown(spec)).at(what)
    where = str(Path.cwd())
    if where not in sys.path:
        sys.path.insert(0, where)
    try:
        found = import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        raise errors.InvalidValue(f"{what} {errors.shown(spec)} is in no module that there is.") from None
    for part in name.split("."):
        if not hasattr(found, part):
            near = errors.did_you_mean(part, dir(found))
            raise errors.InvalidValue(f"{what} {errors.shown(spec)} is not in {module}.{near}")
        found = getattr(found, part)
    return found


def named_program(spec: str) -> type[Program]:
    """
    The program that *spec* names.

    Raises:
        InvalidValue: There is none.
    """
    found = named(spec, "the program")
    if isinstance(found, type) and issubclass(found, Program):
        return found
    raise errors.InvalidValue.expecting("a class of dspex.Program", errors.shown(found)).at("the program")

"""Names of a package that are imported when they are first asked for, which keeps importing it light."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

__all__ = ["later"]


def later(package: str, rooms: Mapping[str, str]) -> Callable[[str], Any]:
    """Make the `__getattr__` of *package*: *rooms* says in which of its modules a name is."""

    def get(name: str) -> Any:
        if name not in rooms:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{rooms[name]}"), name)

    return get

"""
Language models: a local one with neither key nor network, and the rule for which one to use.

Importing this package imports neither dspy nor xllamacpp. Using it does, and says which extra is
missing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from dspex.lm.extras import LOCAL, need_dspy
from dspex.lm.models import adapter_for, default, local

if TYPE_CHECKING:
    from dspex.lm.adapter import TerseAdapter
    from dspex.lm.engine import AsyncLocalEngine, LocalEngine

__all__ = ["AsyncLocalEngine", "LocalEngine", "TerseAdapter", "adapter_for", "default", "local"]

_rooms = {
    "AsyncLocalEngine": "dspex.lm.engine",
    "LocalEngine": "dspex.lm.engine",
    "TerseAdapter": "dspex.lm.adapter",
}


def __getattr__(name: str) -> Any:
    if name not in _rooms:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    need_dspy(*LOCAL)
    return getattr(import_module(_rooms[name]), name)

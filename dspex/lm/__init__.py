"""
Language models: a local one with neither key nor network, and the rule for which one to use.

Importing this package imports neither dspy nor xllamacpp. Using it does, and says which extra is
missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dspex.later import later
from dspex.lm.extras import LOCAL, need_dspy
from dspex.lm.models import adapter_for, default, local

if TYPE_CHECKING:
    from dspex.lm.adapter import TerseAdapter
    from dspex.lm.engine import AsyncLocalEngine, LocalEngine

__all__ = ["AsyncLocalEngine", "LocalEngine", "TerseAdapter", "adapter_for", "default", "local"]

_rooms = {"AsyncLocalEngine": "engine", "LocalEngine": "engine", "TerseAdapter": "adapter"}
_room = later(__name__, _rooms)


def __getattr__(name: str) -> Any:
    if name in _rooms:
        need_dspy(*LOCAL)
    return _room(name)

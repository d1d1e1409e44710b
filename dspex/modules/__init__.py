"""
Steps of a program: the contract, plain functions, and the modules that DSPy runs.

Importing this package imports no dspy; making a module that needs it does, and says when it is missing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex.later import later
from dspex.modules.base import BoundModule, FunctionModule, Module, Modules, as_module, execute

if TYPE_CHECKING:
    from dspex.modules.predictors import (
        BestOfN,
        ChainOfThought,
        MultiChainComparison,
        Predict,
        ProgramOfThought,
        ReAct,
        Refine,
        wrap,
    )

__all__ = [
    "BestOfN",
    "BoundModule",
    "ChainOfThought",
    "FunctionModule",
    "Module",
    "Modules",
    "MultiChainComparison",
    "Predict",
    "ProgramOfThought",
    "ReAct",
    "Refine",
    "as_module",
    "execute",
    "wrap",
]

__getattr__ = later(__name__, {name: "predictors" for name in __all__ if name not in globals()})

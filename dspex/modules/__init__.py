"""
Steps of a program: the contract, plain functions, and the modules that DSPy runs.

Importing this package imports no dspy; making a module that needs it does, and says when it is missing.
"""

from __future__ import annotations

from dspex.modules.base import BoundModule, FunctionModule, Module, Modules, as_module, execute
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

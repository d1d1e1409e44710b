"""
Optimizers: what looks for better values of a program's variables on a live session.

Importing this package imports neither optuna nor dspy. Using it does, and says which extra is missing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .bandits import Bandit
from .base import Optimizer
from .dspy_search import DSPyOptimizer
from .joint import JointOptimizer
from .optuna_search import OptunaOptimizer
from .studies import Study, Trial

if TYPE_CHECKING:
    from .bridge import as_dspy_module

__all__ = [
    "Bandit",
    "DSPyOptimizer",
    "JointOptimizer",
    "Optimizer",
    "OptunaOptimizer",
    "Study",
    "Trial",
    "as_dspy_module",
]


def __getattr__(name: str) -> Any:
    if name != "as_dspy_module":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("dspex.optimizers.bridge").as_dspy_module

"""
Optimizers: what looks for better values of a program's variables on a live session.

Importing this package imports neither optuna nor dspy. Using it does, and says which extra is missing.
"""

from typing import TYPE_CHECKING

from dspex.later import later

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

__getattr__ = later(__name__, {"as_dspy_module": "bridge"})

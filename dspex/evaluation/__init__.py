"""How good a program is: datasets, metrics, and running one over the other."""

from .datasets import Example, dataset
from .evaluate import Pool, evaluate
from .metrics import ChoiceAccuracy, ExactMatch, Metric, TokenF1, choice_accuracy, exact_match, token_f1
from .results import Evaluation, Scored

__all__ = [
    "ChoiceAccuracy",
    "Evaluation",
    "ExactMatch",
    "Example",
    "Metric",
    "Pool",
    "Scored",
    "TokenF1",
    "choice_accuracy",
    "dataset",
    "evaluate",
    "exact_match",
    "token_f1",
]

"""The two optional packages of this room, or the sentence that says how to get them."""

from __future__ import annotations

import os
import sys
from typing import Any

from dspex.errors import missing_extra

__all__ = ["LOCAL", "need_dspy", "need_xllamacpp"]

LOCAL = ("Local language models", "local")
"""What is said of a local model for which a package is missing: its extra brings all that it needs."""


def need_dspy(what: str = "DSPy modules", extra: str = "dspy") -> Any:
    """The dspy package; raises `MissingExtra` without it, which says that *what* needs *extra*."""
    try:
        import dspy
    except ModuleNotFoundError as error:
        if error.name != "dspy":
            raise
        raise missing_extra(what, extra) from error
    return dspy


def need_xllamacpp() -> Any:
    """The xllamacpp package; raises `MissingExtra` without it."""
    # Its threads spin while they wait for each other: by default so long that on busy cores a call of 0.5 s
    # takes 10 s, while without spinning every call takes twice as long. OpenMP reads this when it is loaded,
    # and the environment is left as it was found.
    ours = "xllamacpp" not in sys.modules and not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & set(os.environ)
    if ours:
        os.environ["GOMP_SPINCOUNT"] = "1000"
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        if error.name != "xllamacpp":
            raise
        raise missing_extra(*LOCAL) from error
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]
    return xllamacpp

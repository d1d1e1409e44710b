"""The two optional packages of this room, or the sentence that says how to get them."""

from __future__ import annotations

import os
import sys
from typing import Any

from dspex.errors import missing_extra

__all__ = ["need_dspy", "need_xllamacpp"]


def need_dspy() -> Any:
    """The dspy package; raises `MissingExtra` without it."""
    try:
        import dspy
    except ModuleNotFoundError as error:
        if error.name != "dspy":
            raise
        raise missing_extra("DSPy modules", "dspy") from error
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
        raise missing_extra("Local language models", "local") from error
    finally:
        if ours:
            del os.environ["GOMP_SPINCOUNT"]
    return xllamacpp

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
    # Its threads wait for each other in a spin, which on busy cores makes a call of 0.1 s one of 10 s. OpenMP
    # reads how to wait when it is loaded, and the environment is left as it was found.
    quiet = "xllamacpp" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ
    if quiet:
        os.environ["OMP_WAIT_POLICY"] = "passive"
    try:
        import xllamacpp
    except ModuleNotFoundError as error:
        if error.name != "xllamacpp":
            raise
        raise missing_extra("Local language models", "local") from error
    finally:
        if quiet:
            del os.environ["OMP_WAIT_POLICY"]
    return xllamacpp

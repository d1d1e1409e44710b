"""Values that come back wrong from stores that were written in a hurry, by kind."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import attrs

from dspex.kinds import (
    MAX_BYTES,
    Boolean,
    Choice,
    Demos,
    Embedding,
    Float,
    Integer,
    Kind,
    ListOf,
    ModuleChoice,
    Prompt,
    Secret,
    Struct,
    Tensor,
    Text,
)
from dspex.wire import pack_value

__all__ = ["VALUES", "Case", "bits"]


@attrs.frozen
class Case:
    """A value, and the kind that takes it, or does not."""

    kind: Callable[[], Kind[Any]]
    value: Callable[[], Any]
    initial: Any
    refused: bool = False


@attrs.frozen
class Settings:
    """A class of the user."""

    rate: float
    words: tuple[str, ...] = ()


def bits(kind: Kind[Any], value: Any) -> tuple[type, bytes]:
    """All there is to a stored value: two that have the same are the same, NaN and minus zero included."""
    return type(value), pack_value(kind, value)


def _case(kind: Callable[[], Kind[Any]], value: Any, initial: Any, *, refused: bool = False) -> Case:
    return Case(kind, value if callable(value) else lambda: value, initial, refused)


def _text(size: int) -> Callable[[], str]:
    return lambda: "x" * size


def _tensor(name: str) -> Callable[[], Any]:
    def make() -> Any:
        import numpy as np

        match name:
            case "nan":
                return np.array([[math.nan, -0.0], [math.inf, 1e-310]])
            case "empty":
                return np.zeros((0, 3), "int8")
            case "scalar":
                return np.array(2**63, "uint64")
            case "big-endian":
                return np.arange(6, dtype=">i4").reshape(2, 3)
            case "view":
                return np.arange(10, dtype="float32")[::-3]
            case "complex":
                return np.array([1 + 2j], "complex64")
            case _:
                return np.array([True, False])

    return make


def _float(value: float, *, allow_nan: bool) -> Case:
    return _case(lambda: Float(allow_nan=allow_nan), value, 0.0)


_floats: dict[str, tuple[float, bool]] = {
    "minus zero": (-0.0, False),
    "tiny": (5e-324, False),
    "large": (1.7976931348623157e308, False),
    "a third": (1 / 3, False),
    "nan": (math.nan, True),
    "infinity": (math.inf, True),
    "minus infinity": (-math.inf, True),
}
_integers = {"2^63-1": 2**63 - 1, "-2^63": -(2**63), "2^53+1": 2**53 + 1, "minus one": -1}
_texts = {
    "empty": "",
    "nul": "a\0b",
    "only nul": "\0",
    "emoji": "🦉",
    "nfd": "e\u0301",
    "quotes": "'; DROP TABLE records; --",
    "lines": "a\r\nb\n",
    "number": "1.0",
    "line separator": "\u2028\u202e",
}
_arrays = ("nan", "empty", "scalar", "big-endian", "view", "bool", "complex")

VALUES: dict[str, Case] = {
    **{f"float {name}": _float(value, allow_nan=nan) for name, (value, nan) in _floats.items()},
    "float of an integer": _case(Float, 3, 0.0),
    "float nan where it is not allowed": _case(Float, math.nan, 0.0, refused=True),
    "float of true": _case(Float, True, 0.0, refused=True),
    **{f"integer {name}": _case(Integer, value, 0) for name, value in _integers.items()},
    "integer 2^63": _case(Integer, 2**63, 0, refused=True),
    "integer of true": _case(Integer, True, 0, refused=True),
    "boolean true": _case(Boolean, True, False),
    "boolean of one": _case(Boolean, 1, False, refused=True),
    **{f"text {name}": _case(Text, value, "a") for name, value in _texts.items()},
    "text surrogate": _case(Text, "\ud800", "a", refused=True),
    "text 1 MiB less one": _case(Text, _text(MAX_BYTES - 1), ""),
    "text 1 MiB": _case(Text, _text(MAX_BYTES), ""),
    "text 1 MiB and one": _case(Text, _text(MAX_BYTES + 1), "", refused=True),
    "prompt": _case(Prompt, "Say {x}.\n", "a"),
    "secret": _case(Secret, "k\0ey", "a"),
    "module": _case(lambda: ModuleChoice("Predict", "ChainOfThought"), "ChainOfThought", "Predict"),
    "choice of one beside true": _case(lambda: Choice(1, True, "1"), True, "1"),
    "choice of integer one": _case(lambda: Choice(1, True, "1"), 1, "1"),
    "list": _case(lambda: ListOf(Float()), [-0.0, 1, 2.5], ()),
    "empty list": _case(lambda: ListOf(Integer()), [], (1,)),
    "demos": _case(Demos, [{"question": "a\0", "answer": {"deep": [1, True, None, -0.0, b"\xff"]}}], ()),
    "struct": _case(lambda: Struct(Settings), Settings(0.1, ("a", "b")), Settings(1.0)),
    "embedding": _case(Embedding, [0.1, -0.0], [0.0]),
    **{f"tensor {name}": _case(Tensor, _tensor(name), [0.0]) for name in _arrays},
}
"""Every case by what it is called in a report."""

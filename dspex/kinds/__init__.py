"""Kinds: the types of variables, with their constraints."""

from .arrays import Embedding, Tensor
from .base import MAX_BYTES, MAX_DEPTH, MAX_ITEMS, Kind
from .choices import Boolean, Choice, ModuleChoice
from .lists import Demos, ListOf
from .numbers import Float, Integer
from .plain import Plain
from .spec import as_kind
from .structs import Struct
from .text import Prompt, Secret, Text

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_ITEMS",
    "Boolean",
    "Choice",
    "Demos",
    "Embedding",
    "Float",
    "Integer",
    "Kind",
    "ListOf",
    "ModuleChoice",
    "Plain",
    "Prompt",
    "Secret",
    "Struct",
    "Tensor",
    "Text",
    "as_kind",
]

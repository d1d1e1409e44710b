"""Search spaces: what the declarations of a program let an optimizer try."""

from .dimensions import Dimension, Options, Range
from .mapping import Mapped
from .space import SearchSpace

__all__ = ["Dimension", "Mapped", "Options", "Range", "SearchSpace"]

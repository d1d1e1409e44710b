"""Kinds of arrays, and the one place that imports NumPy: when such a kind is made, not before."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

from dspex.errors import missing_extra

from .base import Kind
from .constraints import Must, count, if_set, is_sequence, to_tuple
from .plain import INT64_MAX, MAX_BYTES, MAX_DEPTH, too_deep, too_large

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import TypeAlias

    import numpy.typing as npt

    Array: TypeAlias = npt.NDArray[Any]

__all__ = ["Embedding", "Tensor"]

HEADER = 512
"""The most bytes of an encoded array that are not its data: the names, and up to 32 dimensions."""

FLOATS = ("float16", "float32", "float64")

DTYPES = (
    "bool",
    *("int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
    *FLOATS,
    *("complex64", "complex128"),
)
"""What every machine has alike: no extended floats, no objects, no texts."""

RANKS = {"b": 0, "u": 1, "i": 1, "f": 2, "c": 3}
"""What numbers of a list may become: as many dimensions of number, or more."""


def _numpy() -> ModuleType:
    try:
        import numpy  # noqa: ICN001 - an extra
    except ImportError:
        raise missing_extra("Array kinds", "arrays") from None
    return numpy


def _frozen(array: Array) -> Array:
    """Copy *array* to little-endian bytes that nobody can make writable again, and read those."""
    return _from_bytes(array.astype(array.dtype.newbyteorder("<")).tobytes(), array.dtype.name, array.shape)


def _from_bytes(data: bytes, dtype: str, shape: tuple[int, ...]) -> Array:
    np = _numpy()
    array: Array = np.frombuffer(data, np.dtype(dtype).newbyteorder("<")).reshape(shape)
    return array


class _Array(Kind["Array"]):
    """What arrays share: how they are read, written and measured."""

    __slots__ = ()

    def __attrs_post_init__(self) -> None:
        """Fail here, where the kind is declared, when NumPy is missing."""
        _numpy()

    @abstractmethod
    def _wanted(self) -> str:
        """Return what an array of this kind is, for a sentence."""

    def _read(self, value: object) -> Array:
        """Return *value* as an array of numbers, not yet copied."""
        try:
            array: Array = _numpy().asarray(value)
        except Exception:  # ragged, or an object whose own __array__ fails in its own way
            raise self.refusal(self._wanted(), value) from None
        if array.dtype.name not in DTYPES:
            raise self.refusal(self._wanted(), value)
        if array.nbytes > MAX_BYTES - HEADER:
            raise too_large(array.nbytes)
        if array.ndim > MAX_DEPTH:
            raise too_deep()
        return array

    def dump(self, value: Array) -> dict[str, Any]:
        """Return dtype, shape, and the raw little-endian bytes."""
        return {
            "dtype": value.dtype.name,
            "shape": list(value.shape),
            "data": value.tobytes(),
        }

    def load(self, plain: object) -> Array:
        """Return the array that `dump` made *plain* of."""
        return self.check(self._loaded(plain))

    def _loaded(self, plain: object) -> Array:
        if not isinstance(plain, Mapping) or set(plain) != {"dtype", "shape", "data"}:
            raise self.refusal("a mapping of dtype, shape and data", plain)
        dtype, shape, data = plain["dtype"], plain["shape"], plain["data"]
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise self.refusal("an array of a numeric dtype", dtype)
        if not is_sequence(shape) or len(shape) > MAX_DEPTH or not all(map(_is_size, shape)):
            raise self.refusal(f"an array with at most {MAX_DEPTH} dimensions from 0", shape)
        size = math.prod(shape) * _numpy().dtype(dtype).itemsize
        if not isinstance(data, bytes) or len(data) != size:
            raise self.refusal(f"{size} bytes of data", data)
        if dtype == "bool" and not set(data) <= {0, 1}:
            raise self.refusal("booleans of one byte, 0 or 1", data)
        try:
            return _from_bytes(data, dtype, tuple(shape))
        except ValueError:  # dimensions whose product overflows, next to one of 0
            raise self.refusal("an array that fits into memory", shape) from None

    def parse(self, text: str) -> Array:
        """Return the array that *text* spells as nested JSON lists."""
        return self.check_json(text, "an array as JSON")

    def size(self, value: Array) -> int:
        """Return the bytes of the data, and what surrounds it."""
        return value.nbytes + HEADER


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INT64_MAX


@frozen(repr=False)
class Embedding(_Array, name="embedding"):
    """
    A vector of finite floats.

    Takes a 1-D array or list of numbers. Stores a read-only array: 16, 32 or 64-bit floats as given,
    64-bit ones for all else. Needs the extra `arrays`.
    """

    dimensions: int | None = field(default=None, validator=if_set(count))
    """How many numbers; None for any number."""

    def _wanted(self) -> str:
        return f"a 1-D array of {'' if self.dimensions is None else f'{self.dimensions} '}floats"

    def check(self, value: object) -> Array:
        """Return *value* as a read-only array."""
        array = self._read(value)
        if array.dtype.kind not in "iuf" or array.ndim != 1 or self.dimensions not in (None, len(array)):
            raise self.refusal(self._wanted(), value)
        if not _numpy().isfinite(array).all():
            raise self.refusal("an array without NaN and infinities", value)
        return _frozen(array if array.dtype.name in FLOATS else array.astype("float64"))

    def json_schema(self) -> dict[str, Any]:
        """Return a list of numbers."""
        return _nested({"type": "number"}, (self.dimensions,))

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether the other has as many dimensions, or any."""
        return isinstance(other, Embedding) and other.dimensions in (None, self.dimensions)


def _to_shape(shape: Sequence[int | None] | None) -> tuple[int | None, ...] | None:
    return to_tuple(shape)


def _are_sizes(shape: object) -> bool:
    return (
        isinstance(shape, tuple)
        and len(shape) <= MAX_DEPTH
        and all(size is None or _is_size(size) for size in shape)
    )


@frozen(repr=False, kw_only=True)
class Tensor(_Array, name="tensor"):
    """
    An array of numbers.

    Takes an array of any numeric dtype, NaN and infinities included, or nested lists. Stores a read-only
    array with the same numbers, little-endian. Needs the extra `arrays`.
    """

    shape: tuple[int | None, ...] | None = field(
        default=None,
        converter=_to_shape,
        validator=if_set(Must("a list of sizes, each from 0 or None", _are_sizes)),
    )
    """The size of each dimension, None for any size; None in all for any number of dimensions."""

    dtype: str | None = field(
        default=None, validator=if_set(Must(f"one of {', '.join(DTYPES)}", DTYPES.__contains__))
    )
    """The dtype; None for any numeric one. An array of another is taken where NumPy calls the cast safe."""

    def _wanted(self) -> str:
        shape = "" if self.shape is None else f" of shape {self.shape}"
        return f"an array of {self.dtype or 'numbers'}{shape}"

    def check(self, value: object) -> Array:
        """Return *value* as a read-only array."""
        array = self._read(value)
        if not self._fits(array.shape):
            raise self.refusal(self._wanted(), value)
        return _frozen(self._cast(array, listed=not hasattr(value, "dtype")))

    def _fits(self, shape: tuple[int | None, ...]) -> bool:
        return self.shape is None or (
            len(self.shape) == len(shape)
            and all(mine in (None, size) for mine, size in zip(self.shape, shape, strict=True))
        )

    def _cast(self, array: Array, *, listed: bool) -> Array:
        """Give *array* the declared dtype; numbers of a list have none yet, and are rounded to it."""
        if self.dtype is None or array.dtype.name == self.dtype:
            return array
        np = _numpy()
        safe = np.can_cast(array.dtype, self.dtype, "safe")
        if safe or (listed and RANKS[array.dtype.kind] <= RANKS[np.dtype(self.dtype).kind]):
            with np.errstate(over="ignore", invalid="ignore"):  # what is lost is looked for below
                cast: Array = array.astype(self.dtype)
            if safe or self._kept(array, cast):
                return cast
        raise self.refusal(self._wanted(), array)

    @staticmethod
    def _kept(array: Array, cast: Array) -> bool:
        """Say whether integers are the same, and no finite float became infinite."""
        np = _numpy()
        kept = array == cast if cast.dtype.kind in "iu" else np.isfinite(cast) | ~np.isfinite(array)
        return bool(kept.all())

    def json_schema(self) -> dict[str, Any]:
        """Return nested lists of numbers, as deep as the shape says."""
        if self.shape is None:
            return {"type": ["array", "number", "boolean"]}
        kind = {"bool": "boolean", None: ["number", "boolean"]}.get(self.dtype, "number")
        return _nested({"type": kind}, self.shape)

    def narrows(self, other: Kind[Any]) -> bool:
        """Say whether each size and the dtype are the other's, or any there."""
        return (
            isinstance(other, Tensor)
            and other.dtype in (None, self.dtype)
            and (other.shape is None or (self.shape is not None and other._fits(self.shape)))
        )


def _nested(item: dict[str, Any], shape: tuple[int | None, ...]) -> dict[str, Any]:
    for size in reversed(shape):
        sizes = {} if size is None else {"minItems": size, "maxItems": size}
        item = {"type": "array", "items": item, **sizes}
    return item

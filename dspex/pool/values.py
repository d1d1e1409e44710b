"""
The inputs and outputs of calls as bytes: MessagePack, like the values of variables, and no pickle.

Plain data travels as it is, and so do tuples, NumPy's arrays and scalars, and DSPy's predictions, each under
a number of its own. Instances of attrs classes, dataclasses, Pydantic models and enums travel where the
annotations of `forward` name their class: both ends read them off the same program, so no class is looked up
by a name that came over a wire. Everything else is refused with the place where it is: nothing is
stringified.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any, get_args, get_type_hints

import attrs
import msgspec

from dspex import errors

__all__ = ["DESCRIBED", "PLAIN", "Values", "fields_of", "values_of"]

TUPLE, ARRAY, PREDICTION, INSTANCE, MEMBER = range(1, 6)

DEPTH = 64
"""The most lists, mappings and instances inside one another."""

_AS_IS = frozenset({type(None), bool, int, float, str, bytes})

_encode = msgspec.msgpack.Encoder().encode


class _Refused(Exception):
    """Something cannot travel; on its way up it learns where that is."""

    def __init__(self, expected: str, given: str) -> None:
        self.expected, self.given, self.path = expected, given, ""


class _TooDeep(Exception):
    """There is no end of lists in lists."""


class Values:
    """Turns the values of one program's calls into bytes and back."""

    def __init__(self, classes: tuple[type, ...] = (), names: tuple[str, ...] = ()) -> None:
        self._names = names
        self._classes = {_name(cls): cls for cls in classes}
        self._decode = msgspec.msgpack.Decoder(ext_hook=self._extended).decode

    def pack(self, value: Any, where: str) -> bytes:
        """
        *value* as bytes.

        Raises:
            InvalidValue: Something in it cannot travel; the sentence says where it is, seen from *where*.
            LimitExceeded: It is nested too deep.
        """
        return self._packed(value, where, lambda: value if type(value) in _AS_IS else self._plain(value, 0))

    def pack_inputs(self, args: tuple[Any, ...], named: Mapping[str, Any]) -> bytes:
        """The inputs of a call as bytes; one that is refused is named."""
        return self._packed(
            [args, named],
            "inputs",
            lambda: [self._by_position(args), self._mapping(named, 2, "[{!r}]")],
        )

    def _by_position(self, args: tuple[Any, ...]) -> list[Any]:
        try:
            return self._items(args, 2)
        except _Refused as refused:
            number, _, rest = refused.path[1:].partition("]")
            if int(number) < len(self._names):
                refused.path = f"[{self._names[int(number)]!r}]{rest}"
            raise

    @staticmethod
    def _packed(value: Any, where: str, plain: Callable[[], Any]) -> bytes:
        try:
            return _encode(plain())
        except _TooDeep:
            raise errors.LimitExceeded(
                f"{where} is nested deeper than {DEPTH} levels; that is the limit.", limit=DEPTH
            ) from None
        except _Refused as refused:
            raise errors.InvalidValue.expecting(refused.expected, refused.given).at(
                where + refused.path
            ) from None
        except OverflowError:
            raise errors.InvalidValue.expecting("made of 64-bit integers", errors.shown(value, 80)).at(
                where
            ) from None
        except UnicodeEncodeError:
            raise errors.InvalidValue.expecting("valid UTF-8 text", errors.shown(value, 80)).at(
                where
            ) from None

    def unpack(self, data: bytes) -> Any:
        """
        The value that *data* stands for.

        Raises:
            InvalidValue: It stands for none that the program's annotations know.
        """
        try:
            return self._decode(data)
        except (msgspec.DecodeError, ValueError, TypeError, KeyError) as error:
            if isinstance(error, errors.DspexError):
                raise
            raise errors.InvalidValue.expecting(f"in MessagePack ({error})", f"{len(data)} bytes") from None

    # ---- out ---------------------------------------------------------------------------------------

    def _plain(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if depth > DEPTH:
            raise _TooDeep
        if kind is list:
            return self._items(value, depth + 1)
        if kind is tuple:
            return msgspec.msgpack.Ext(TUPLE, _encode(self._items(value, depth + 1)))
        if isinstance(value, Mapping):
            return self._mapping(value, depth + 1, "[{!r}]")
        return self._special(value, kind, depth + 1)

    def _items(self, items: list[Any] | tuple[Any, ...], depth: int) -> list[Any]:
        plain: list[Any] = []
        try:
            for item in items:
                plain.append(item if type(item) in _AS_IS else self._plain(item, depth))  # noqa: PERF401 - its length
        except _Refused as refused:
            refused.path = f"[{len(plain)}]{refused.path}"
            raise
        return plain

    def _mapping(self, mapping: Mapping[Any, Any], depth: int, part: str) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for key, item in mapping.items():
            if type(key) is not str:
                raise _Refused("a mapping with text keys", errors.shown(key, 60))
            try:
                plain[key] = item if type(item) in _AS_IS else self._plain(item, depth)
            except _Refused as refused:
                refused.path = part.format(key) + refused.path
                raise
        return plain

    def _special(self, value: Any, kind: type, depth: int) -> Any:
        numpy, dspy = sys.modules.get("numpy"), sys.modules.get("dspy")
        if (
            numpy is not None
            and isinstance(value, numpy.ndarray | numpy.generic)
            and value.dtype.kind in "biufc"
        ):
            little = numpy.asarray(value).astype(value.dtype.newbyteorder("<"), copy=False)
            scalar = isinstance(value, numpy.generic)
            return msgspec.msgpack.Ext(
                ARRAY, _encode([value.dtype.name, list(value.shape), scalar, little.tobytes()])
            )
        if dspy is not None and kind is getattr(dspy, "Prediction", None):
            completions = None if value._completions is None else dict(value._completions._completions)
            store = self._mapping(value._store, depth, ".{}")
            rest = self._items([completions, value._lm_usage], depth)
            return msgspec.msgpack.Ext(PREDICTION, _encode([store, *rest]))
        if self._classes.get(_name(kind)) is kind:
            if isinstance(value, Enum):
                return msgspec.msgpack.Ext(MEMBER, _encode([_name(kind), value.name]))
            body = self._mapping({name: getattr(value, name) for name in fields_of(kind)}, depth, ".{}")
            return msgspec.msgpack.Ext(INSTANCE, _encode([_name(kind), body]))
        raise _Refused(
            "plain data, a tuple, an array, a prediction, or of a class that the annotations of forward name",
            f"{kind.__qualname__} {errors.shown(value, 60)}",
        )

    # ---- in ----------------------------------------------------------------------------------------

    def _extended(self, code: int, data: memoryview) -> Any:
        parts = self._decode(data)
        if code == TUPLE:
            return tuple(parts)
        if code == ARRAY:
            return _array(*parts)
        if code == PREDICTION:
            return _prediction(*parts)
        name, body = parts
        cls: Any = self._classes.get(name)
        if cls is None:
            raise errors.InvalidValue.expecting("of a class that the annotations of forward name", name)
        return cls[body] if code == MEMBER else _instance(cls, body)


def _name(cls: type) -> str:
    module = cls.__module__
    return f"{'__main__' if module == '__mp_main__' else module}.{cls.__qualname__}"


def _array(dtype: str, shape: list[int], scalar: bool, data: bytes) -> Any:
    import numpy as np

    array = np.frombuffer(bytearray(data), np.dtype(dtype).newbyteorder("<")).reshape(shape)
    array = array.astype(np.dtype(dtype), copy=False)
    return array[()] if scalar else array


def _prediction(store: dict[str, Any], completions: dict[str, list[Any]] | None, usage: Any) -> Any:
    import dspy

    made = dspy.Prediction(**store)
    if completions is not None:
        made._completions = dspy.primitives.prediction.Completions(completions)
    if usage is not None:
        made.set_lm_usage(usage)
    return made


# ---- the classes that a program's annotations name -------------------------------------------------------


def fields_of(cls: Any) -> list[str]:
    """The names of what an instance of such a class has: an attrs class, a dataclass, a Pydantic model."""
    if attrs.has(cls):
        return [field.name for field in attrs.fields(cls) if field.init]
    if is_dataclass(cls):
        return [field.name for field in dataclass_fields(cls) if field.init]
    return list(cls.model_fields)


def _instance(cls: Any, body: dict[str, Any]) -> Any:
    if attrs.has(cls):
        return cls(**{field.alias: body[field.name] for field in attrs.fields(cls) if field.init})
    return cls(**body)


def _travels(cls: Any) -> bool:
    return isinstance(cls, type) and (
        issubclass(cls, Enum) or attrs.has(cls) or is_dataclass(cls) or hasattr(cls, "model_fields")
    )


def _named_in(annotation: Any, found: dict[type, None]) -> None:
    for part in get_args(annotation):
        _named_in(part, found)
    if _travels(annotation) and annotation not in found:
        found[annotation] = None
        if not issubclass(annotation, Enum):
            for part in _hints(annotation).values():
                _named_in(part, found)


def _hints(thing: Any) -> dict[str, Any]:
    try:
        return get_type_hints(thing)
    except Exception:  # names that only type checkers see
        return {}


def _positions(program: type) -> tuple[str, ...]:
    """The names of the inputs by position."""
    for name in ("forward", "aforward"):
        method: Any = inspect.getattr_static(program, name, None)
        if inspect.isfunction(method):
            _, *inputs = inspect.signature(method).parameters.values()
            return tuple(one.name for one in inputs if one.kind is one.POSITIONAL_OR_KEYWORD)
    return ()


@lru_cache(maxsize=256)
def values_of(program: type) -> Values:
    """What the inputs and outputs of *program* are encoded with."""
    found: dict[type, None] = {}
    for name in ("forward", "aforward"):
        method: Callable[..., Any] | None = inspect.getattr_static(program, name, None)
        for annotation in _hints(method).values() if method is not None else ():
            _named_in(annotation, found)
    return Values(tuple(found), _positions(program))


class _Described(Values):
    """Makes a mapping of an instance, and a name of a member: for who does not have the classes."""

    def _extended(self, code: int, data: memoryview) -> Any:
        if code in (INSTANCE, MEMBER):
            return self._decode(data)[1]
        return super()._extended(code, data)


DESCRIBED = _Described()
"""For what a program gives where only its name is known."""

PLAIN = Values()
"""For values that belong to no program."""

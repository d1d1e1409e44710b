"""The kind of attrs classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeVar

import attrs
import msgspec
from attrs import Factory, field, frozen

from dspex.errors import InvalidDeclaration, InvalidValue, LimitExceeded, listed

from .base import Kind
from .constraints import Must, if_set
from .plain import brief, freeze, is_text, part, thaw

__all__ = ["Struct"]

T = TypeVar("T")


def _reason(error: BaseException) -> str:
    """Return what a validator says; attrs puts more than the sentence into some errors."""
    text = str(error.args[0]) if error.args else type(error).__name__
    return "".join(c if c.isprintable() else "�" for c in text[:200])


# The class as JSON Schema


def _encoded(schema: Mapping[str, Any] | bytes) -> bytes:
    """
    Encode a schema; nothing for what has no encoding, so that the validator refuses it.

    As bytes it is immutable, hashable and can be pickled like the rest of a kind.
    """
    if isinstance(schema, bytes):
        return schema
    try:
        return msgspec.json.encode(schema)
    except (TypeError, ValueError, RecursionError):
        return b""


def _is_object_schema(encoded: bytes) -> bool:
    try:
        schema = msgspec.json.decode(encoded)
    except (msgspec.DecodeError, RecursionError):
        return False
    return (
        isinstance(schema, dict)
        and isinstance(schema.get("properties", {}), dict)
        and isinstance(schema.get("required", []), list)
    )


def _schema_of(kind: Struct[Any]) -> Mapping[str, Any]:
    cls = kind.cls
    if not _is_attrs_class(cls):
        return {}
    from .conversion import converter

    try:
        converter.get_structure_hook(cls)
        (root,), parts = msgspec.json.schema_components(
            (cls,), schema_hook=lambda other: {"title": str(other)}, ref_template="{name}"
        )
    except Exception as error:
        raise InvalidDeclaration(
            f"Struct: cls must be an attrs class of plain data (got {brief(cls)}: {_reason(error)}).",
            kind="Struct",
            constraint="cls",
        ) from error
    schema: Mapping[str, Any] = _inlined(root, parts)
    return schema


def _inlined(schema: Any, parts: Mapping[str, Any], seen: tuple[str, ...] = ()) -> Any:
    """Put each part where it is referred to; where one contains itself, say only that it is an object."""
    if isinstance(schema, list):
        return [_inlined(item, parts, seen) for item in schema]
    if not isinstance(schema, dict):
        return schema
    inlined = {k: _inlined(v, parts, seen) for k, v in schema.items() if k != "$ref"}
    if inlined.get("type") == "object" and "properties" in inlined:
        inlined["additionalProperties"] = False
    name = schema.get("$ref")
    if name is None:
        return inlined
    if name in seen:
        return {"type": "object"} | inlined
    return _inlined(parts[name], parts, (*seen, name)) | inlined


def _is_attrs_class(cls: object) -> bool:
    return isinstance(cls, type) and attrs.has(cls)


@frozen(repr=False)
class Struct(Kind[T], name="struct"):
    """
    An instance of an attrs class.

    Takes an instance or a mapping of its fields, with every type as annotated and every validator of the
    class content. Stores a structured copy, which is as immutable as the class makes it.

    No process imports a class because another one names it. Where only the description has arrived,
    `cls` is None, and what is taken and stored is a read-only mapping with the fields that the schema
    knows: a server holds such values bit for bit; the validators run where the class is.
    """

    cls: type[T] | None = field(default=None, validator=if_set(Must("an attrs class", _is_attrs_class)))
    """The class, where it is known."""

    class_name: str = field(
        default=Factory(lambda kind: getattr(kind.cls, "__name__", ""), takes_self=True),
        validator=Must("the name of a class", lambda value: is_text(value) and value != ""),
        kw_only=True,
    )
    """The name of the class, for people."""

    schema: bytes = field(
        default=Factory(_schema_of, takes_self=True),
        converter=_encoded,
        validator=Must("the JSON Schema of an object", _is_object_schema),
        kw_only=True,
    )
    """The JSON Schema of the class, encoded."""

    def __repr__(self) -> str:
        return f"Struct({self.class_name})"

    def check(self, value: object) -> T:
        """Return *value* as a new instance, or as a read-only mapping where the class is not known."""
        try:
            return self._held(value) if self.cls is None else self._made(value, self.cls)
        except (InvalidValue, LimitExceeded):
            raise
        except Exception as error:
            raise self._explained(error, value) from None

    def _held(self, value: object) -> Any:
        if not isinstance(value, Mapping):
            raise self.refusal(f"a mapping of the fields of {self.class_name}", value)
        schema = self.json_schema()
        for name in schema.get("required", []):
            if name not in value:
                raise self.refusal(self._missing(name), value)
        unknown = [name for name in value if name not in schema.get("properties", {})]
        if unknown:
            raise self.refusal(self._unknown(unknown), value)
        return freeze(value)

    def _made(self, value: object, cls: type[T]) -> T:
        if type(value) is not cls and not isinstance(value, Mapping):
            expected = f"a {self.class_name}, or a mapping of its fields"
            raise self.refusal(expected, value)
        from .conversion import converter

        fields = value if isinstance(value, Mapping) else converter.unstructure(value, cls)
        made = converter.structure(freeze(fields), cls)
        freeze(converter.unstructure(made, cls))  # what the class made of it must be plain data too
        return made

    def _explained(self, error: Exception, value: object) -> InvalidValue:
        from .conversion import ForbiddenExtraKeysError, first_error

        leaf, path, wanted = first_error(error)
        if isinstance(leaf, InvalidValue):
            return part(f"a {self.class_name} whose {path}", leaf)
        if isinstance(leaf, ForbiddenExtraKeysError):
            return self.refusal(self._unknown(leaf.extra_fields), value)
        if isinstance(leaf, KeyError) and wanted is not None:
            return self.refusal(self._missing(path), value)
        if wanted is not None:
            expected = getattr(wanted, "__name__", str(wanted))
            return self.refusal(f"a {self.class_name} whose {path} is of type {expected}", value)
        return self.refusal(f"a {self.class_name} that is valid ({_reason(leaf)})", value)

    def _missing(self, name: str) -> str:
        return f"a {self.class_name} with the field '{name}'"

    def _unknown(self, names: Collection[str]) -> str:
        return f"a {self.class_name} without the unknown {listed(sorted(names, key=str))}"

    def dump(self, value: T) -> dict[str, Any]:
        """Return the fields as plain data."""
        from .conversion import converter

        fields = value if self.cls is None else converter.unstructure(value, self.cls)
        plain: dict[str, Any] = thaw(fields)
        return plain

    def parse(self, text: str) -> T:
        """Return the instance whose fields *text* has as JSON."""
        return self.check_json(text, "an object as JSON")

    def json_schema(self) -> dict[str, Any]:
        """Return the schema of the class."""
        schema: dict[str, Any] = msgspec.json.decode(self.schema)
        return schema

    def describe(self) -> dict[str, Any]:
        """Return the name and the schema of the class: not the class, which stays where it is."""
        return {"kind": self.name, "class_name": self.class_name, "schema": self.json_schema()}

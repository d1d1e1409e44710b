"""
What a value looks like on one line of text, by its type: the grammar that forces it, and how to
read it back.

A grammar is GBNF (llama.cpp's `grammars/README.md`). A type with no short form of its own is one
line of JSON that obeys the type's schema; such a grammar is in Lark as llguidance reads it, whose
`%json` takes a schema.
"""

from __future__ import annotations

import enum
import json
import types
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import attrs
import pydantic

from dspex.errors import InvalidDeclaration, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

__all__ = ["Shape", "grammar", "shape"]


@attrs.frozen
class Shape:
    """How the values of one type are written."""

    pieces: tuple[str, ...]
    """
    Literals in double quotes, alternatives in parentheses, everything else a regular expression of
    classes.
    """

    read: Callable[[str], Any]
    """The value that a line says. Raises `ValueError`."""

    schema: Mapping[str, Any] | None = None
    """The JSON schema that takes the place of `pieces`."""

    write: Callable[[Any], str] | None = None
    """How an example of this type is written, where it is not how DSPy writes it."""


def shape(annotation: Any, line: int) -> Shape:
    """
    The shape of a type; a string has at most *line* characters.

    Raises `InvalidDeclaration` for a type that has none.
    """
    found = _short(annotation, line)
    if found is not None:
        return found
    try:
        adapter = pydantic.TypeAdapter[Any](annotation)
        schema = adapter.json_schema()
    except pydantic.errors.PydanticUserError as error:
        raise InvalidDeclaration(
            f"A language model cannot answer with {shown(annotation)}: it has no JSON schema.",
            annotation=annotation,
        ) from error

    def read(text: str) -> Any:
        return adapter.validate_json(text)

    def write(value: Any) -> str:
        return json.dumps(adapter.dump_python(value, mode="json", warnings=False), ensure_ascii=False)

    # llguidance refuses a schema with a keyword that it does not know, and llama.cpp then
    # constrains nothing. What such a keyword says is checked when the line is read.
    options = {"whitespace_flexible": False, "lenient": True}
    return Shape((), read, {**schema, "x-guidance": options}, write)


def grammar(fields: Iterable[tuple[str, Shape]]) -> str:
    """
    The grammar of an answer whose first label is already written.

    The answer is ` value`, a newline, and for each further field `Label: value` and a newline.
    """
    fields = list(fields)
    lark = any(one.schema is not None for _, one in fields)
    words: list[str] = []
    rules: list[str] = []
    for index, (label, one) in enumerate(fields):
        words.append(_quoted(f"\n{label}: " if index else " "))
        if one.schema is not None:
            rules.append(f"json{index}: %json {json.dumps(one.schema)}")
            words.append(f"json{index}")
        else:
            words.extend(_lark(one.pieces) if lark else one.pieces)
    words.append(_quoted("\n"))
    if lark:
        return "\n".join(["%llguidance {}", f"start: {' '.join(words)}", *rules])
    return f"root ::= {' '.join(words)}"


def _short(annotation: Any, line: int) -> Shape | None:
    if annotation is str:
        return Shape((r"[^\x20\t\r\n]", f"[^\\r\\n]{{0,{line - 1}}}"), str.strip)
    if annotation is bool:
        return _choice({"True": True, "False": False})
    if annotation is int:
        return Shape(("[-]?", "[0-9]{1,18}"), int)
    if annotation is float:
        return Shape(("[-]?", "[0-9]{1,18}", "([.][0-9]{1,18})?"), float)
    if isinstance(annotation, enum.EnumMeta):
        members: list[Any] = list(annotation)
        return _choice({str(one.value): one for one in members}, len(members))
    if get_origin(annotation) is Literal:
        values = get_args(annotation)
        return _choice({str(one): one for one in values}, len(values))
    if get_origin(annotation) in (Union, types.UnionType):
        return _optional(get_args(annotation), line)
    return None


def _optional(arms: tuple[Any, ...], line: int) -> Shape | None:
    rest = [one for one in arms if one is not type(None)]
    inner = _short(rest[0], line) if len(rest) == 1 and len(arms) == 2 else None
    if inner is None:
        return None

    def read(text: str) -> Any:
        return None if text.strip() == "None" else inner.read(text)

    if rest[0] is str:  # its line can say None already
        return Shape(inner.pieces, read)
    return Shape((f'("None" | {" ".join(inner.pieces)})',), read) if _is_choice(inner) else None


def _is_choice(one: Shape) -> bool:
    return len(one.pieces) == 1 and one.pieces[0].startswith('("')


def _choice(labels: Mapping[str, Any], count: int | None = None) -> Shape | None:
    """One of *labels*. None if two values of *count* have one label, or if a label is no line."""
    if len(labels) != (count or len(labels)) or not all(
        one == one.strip() and one.isprintable() for one in labels
    ):
        return None

    def read(text: str) -> Any:
        if text not in labels:
            raise ValueError(f"{text!r} is none of {', '.join(map(repr, labels))}")
        return labels[text]

    return Shape((f"({' | '.join(map(_quoted, labels))})",), read)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _lark(pieces: tuple[str, ...]) -> list[str]:
    if pieces[0].startswith('("'):
        return list(pieces)
    return [f"/{''.join(pieces)}/"]

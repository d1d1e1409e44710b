"""
How values, declarations and errors look outside a process: on a wire, in a file, in a database.

MessagePack, and nothing else: no pickle, no fallback, no import by name. A value is encoded by its kind, so a
reader needs the kind to make one; bytes that are none of the kind's are an `InvalidValue`. The same value
always has the same bytes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dspex import errors
from dspex.commits import Condition, Declaration
from dspex.kinds import Kind
from dspex.kinds.plain import freeze, thaw

__all__ = [
    "as_condition",
    "pack_declaration",
    "pack_error",
    "pack_plain",
    "pack_value",
    "plain_condition",
    "unpack_declaration",
    "unpack_error",
    "unpack_plain",
    "unpack_value",
]

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


def pack_plain(plain: Any) -> bytes:
    """Plain data (None, bool, int, float, str, bytes, lists and dicts of them) as bytes."""
    return _encode(plain)


def unpack_plain(data: bytes) -> Any:
    """
    The plain data that *data* stands for.

    Raises:
        InvalidValue: It is not MessagePack.
    """
    try:
        return _decode(data)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise errors.InvalidValue.expecting(f"MessagePack ({error})", f"{len(data)} bytes") from None


def pack_value(kind: Kind[Any], value: Any) -> bytes:
    """A stored value of *kind* as bytes."""
    return _encode(kind.dump(value))


def unpack_value(kind: Kind[Any], data: bytes) -> Any:
    """
    The stored value of *kind* that *data* stands for; bit for bit what was packed.

    Raises:
        InvalidValue: No value of *kind* looks like that.
    """
    return kind.load(unpack_plain(data))


def pack_declaration(declared: Declaration) -> bytes:
    """A declaration as bytes."""
    kind = declared.kind
    return _encode(
        (
            declared.name,
            kind.describe(),
            kind.dump(declared.initial),
            declared.description,
            declared.owner,
            declared.tunable,
            plain_condition(declared.when),
        )
    )


def unpack_declaration(data: bytes) -> Declaration:
    """
    The declaration that *data* stands for.

    Raises:
        InvalidDeclaration: It describes no kind that this process knows.
        InvalidValue: Its initial value is not one of its kind.
    """
    plain = unpack_plain(data)
    if not isinstance(plain, list) or len(plain) not in (5, 7):
        raise errors.InvalidDeclaration("a declaration must be seven fields, or five of an older dspex.")
    name, description, initial, words, owner, tunable, when = [*plain, True, None][:7]
    kind = Kind.from_description(description)
    return Declaration(name, kind, kind.load(initial), words, owner, tunable, as_condition(when))


def plain_condition(when: Condition | None) -> list[Any] | None:
    """A condition as plain data."""
    return None if when is None else [when.name, thaw(when.values)]


def as_condition(plain: Any) -> Condition | None:
    """
    What `plain_condition` made.

    Raises:
        InvalidDeclaration: It is something else.
    """
    if plain is None:
        return None
    if not isinstance(plain, list) or len(plain) != 2 or not isinstance(plain[1], list):
        raise errors.InvalidDeclaration("a condition must be a name and a list of values.")
    return Condition(str(plain[0]), freeze(plain[1]))


def pack_error(error: errors.DspexError) -> bytes:
    """An error as bytes: code, sentence, and those facts that are plain."""
    facts = {}
    for key, fact in error.facts.items():
        try:
            _encode(fact)
        except (TypeError, ValueError, OverflowError):  # what is no data, no Unicode, or more than 64 bits
            continue
        facts[key] = fact
    return _encode((error.code, error.message, facts))


def unpack_error(data: bytes) -> errors.DspexError:
    """The error that *data* stands for, of the class that its code names."""
    code, message, facts = unpack_plain(data)
    kind = errors.DspexError.by_code.get(code, errors.DspexError)
    return kind(message, **facts)

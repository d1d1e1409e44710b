"""Examples to run a program on: from a list, a file, or DSPy's."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from dspex import errors

__all__ = ["Example", "dataset"]


class Example(Mapping[str, Any]):
    """
    One example: fields by name, some of them the inputs of a program. Reads as a mapping and by attributes.

    A metric gets it as its first argument, as it would get a `dspy.Example`.
    """

    __slots__ = ("_fields", "_inputs")

    def __init__(self, fields: Mapping[str, Any], inputs: Iterable[str]) -> None:
        self._fields = dict(fields)
        self._inputs = tuple(inputs)

    def inputs(self) -> dict[str, Any]:
        """What the program is called with."""
        return {name: self._fields[name] for name in self._inputs}

    def toDict(self) -> dict[str, Any]:  # noqa: N802  DSPy's name
        """All fields."""
        return dict(self._fields)

    def __getitem__(self, name: str) -> Any:
        return self._fields[name]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._fields:
            raise AttributeError(f"the example has no field '{name}'; it has {', '.join(self._fields)}")
        return self._fields[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __repr__(self) -> str:
        return f"Example({errors.shown(self._fields, 120)}, inputs={self._inputs})"


def dataset(source: Any, *, program: Any = None, inputs: Iterable[str] | None = None) -> tuple[Any, ...]:
    """
    Examples from *source*.

    Args:
        source: The path of a `.jsonl`, `.json` or `.csv` file; or mappings, `Example`s or `dspy.Example`s.
        program: Whose inputs they are: fields that its `forward` has parameters for.
        inputs: The names of the input fields, where they are not those; a `dspy.Example` knows its own.

    Raises:
        InvalidValue: There is no example, or one has none of the inputs, or the file cannot be read.
    """
    rows = _rows(source)
    names = None if inputs is None else tuple(inputs)
    parameters = None if program is None else _parameters(program)
    examples = tuple(_example(index, row, names, parameters) for index, row in enumerate(rows))
    if not examples:
        raise errors.InvalidValue.expecting("at least one example", "none").at("the dataset")
    return examples


def _example(index: int, row: Any, names: tuple[str, ...] | None, parameters: frozenset[str] | None) -> Any:
    where = f"example {index} of the dataset"
    if isinstance(row, Example) and names is None:
        return row
    if names is None and callable(getattr(row, "inputs", None)):
        try:
            row.inputs()
        except ValueError:  # a dspy.Example on which nobody called with_inputs()
            row = row.toDict()
        else:
            return row
    fields = row.toDict() if hasattr(row, "toDict") else row
    if not isinstance(fields, Mapping):
        raise errors.InvalidValue.expecting("a mapping of fields", errors.shown(row, 80)).at(where)
    given = names if names is not None else tuple(one for one in fields if one in (parameters or ()))
    missing = [one for one in given if one not in fields]
    if missing or not given:
        wanted = errors.listed(given or sorted(parameters or ()))
        expected = f"a mapping with the inputs {wanted}" if wanted else "given with inputs=…"
        raise errors.InvalidValue.expecting(expected, errors.shown(list(fields), 80)).at(where)
    return Example(fields, given)


def _parameters(program: Any) -> frozenset[str]:
    cls = program if isinstance(program, type) else type(program)
    forward = getattr(cls, "forward", None) or getattr(cls, "aforward", None)
    if forward is None:
        return frozenset()
    return frozenset(list(inspect.signature(forward).parameters)[1:])


def _rows(source: Any) -> Iterable[Any]:
    if not isinstance(source, str | os.PathLike):
        try:
            return list(source)
        except TypeError:
            raise errors.InvalidValue.expecting("a path, or a list of examples", errors.shown(source, 80)).at(
                "the dataset"
            ) from None
    path = Path(source)
    readers = {".jsonl": _jsonl, ".json": _json, ".csv": _csv}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise errors.InvalidValue.expecting(
            f"a file that ends with {', '.join(readers)}", errors.shown(str(path))
        ).at("the dataset")
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            return reader(lines)
    except OSError as error:
        raise errors.InvalidValue.expecting(
            f"a file that can be read ({error.strerror})", errors.shown(str(path))
        ).at("the dataset") from None
    except ValueError as error:
        raise errors.InvalidValue.expecting(
            f"well-formed {path.suffix[1:]} ({error})", errors.shown(str(path))
        ).at("the dataset") from None


def _jsonl(lines: Iterable[str]) -> list[Any]:
    import json

    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from None
    return rows


def _json(file: Any) -> list[Any]:
    import json

    rows = json.load(file)
    if not isinstance(rows, list):
        raise ValueError("not a list")  # noqa: TRY004  said of a file's text
    return rows


def _csv(lines: Iterable[str]) -> list[Any]:
    import csv

    return list(csv.DictReader(lines))

"""The page `docs/api.md`: a line for each public name and method, out of the docstrings."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import Any

from dspex import DspexError, Kind

PUBLIC = (
    "dspex",
    "dspex.modules",
    "dspex.lm",
    "dspex.stores",
    "dspex.stores.redis",
    "dspex.rpc",
    "dspex.pool",
    "dspex.moving",
    "dspex.evaluation",
    "dspex.optimizers",
    "dspex.telemetry",
    "dspex.testing",
)
"""What users import from; all that its `__all__` names is on the page."""

GIVEN = (
    ("dspex.changes", "ChangeSignal"),
    ("dspex.commits", "Declaration"),
    ("dspex.commits", "Receipt"),
    ("dspex.streams", "AsyncChanges"),
    ("dspex.streams", "Changes"),
)
"""What users are given and need not import."""

FIRST = ("Program", "defvariable", "defprogram", "Session")
"""What most readers look for; the rest is sorted."""

MADE = (
    "AsyncChanges",
    "AsyncStream",
    "Batch",
    "BoundModule",
    "Call",
    "ChangeSignal",
    "Changes",
    "Claim",
    "Modules",
    "Stream",
    "Variable",
    "Watch",
)
"""Classes that users do not make: their arguments are not shown."""

INNER = {
    "AsyncChanges": "begin begin_with open push weak_push",
    "BasePool": "abegin begin begin_astream begin_packed begin_stream complete more serves unwanted",
    "Batch": "add join pending",
    "BoundModule": "bound_to",
    "Call": "attended counter deadline end ended member piece queued reference rev settled",
    "ChangeSignal": "receivers_for",
    "Changes": "begin open push weak_push",
    "Choice": "possible",
    "Modules": "with_reader",
    "MemoryStore": "closed private",
    "ModuleChoice": "possible",
    "Pool": "programs",
    "Predict": "own",
    "RayPool": "forget heard post programs",
    "ChainOfThought": "own",
    "Session": "attach attached attachment declare",
    "Settings": "threads_each",
    "Stats": "of",
    "Variable": "declaration listened scoped",
    "Watch": "deliver ended failed overrun tell",
}
"""What the rooms of dspex call on one another."""

HEAD = """\
# API

A line for each public name, with the first sentence of its docstring; `help(name)` has the rest.

<!-- printed by `python docs/make.py api` -->
"""

_UNSAID = (inspect.Signature.empty, "Any", "None", "Self")
"""What need not be said of what a function gives."""

Named = dict[str, Any]


def page() -> str:
    """The text of the page."""
    sections = {"What these give": {name: getattr(import_module(where), name) for where, name in GIVEN}}
    seen = set(sections["What these give"])
    for where in PUBLIC:
        module = import_module(where)
        names = [name for name in module.__all__ if name not in seen]
        seen.update(names)
        sections[f"`from {where} import …`"] = {name: getattr(module, name) for name in names}
    core = sections.pop("`from dspex import …`")
    kinds = {name: one for name, one in core.items() if _is(one, Kind)}
    refusals = {name: one for name, one in core.items() if _is(one, DspexError)}
    rest = [name for name in core if name not in {*kinds, *refusals, *FIRST}]
    sections = {
        "Programs and sessions": {name: core[name] for name in (*FIRST, *rest)},
        "What these give": sections.pop("What these give"),
        "Kinds": kinds,
        "Refusals": refusals,
        **sections,
    }
    classes = {one for names in sections.values() for one in names.values() if inspect.isclass(one)}
    return "\n".join([HEAD, *(_section(title, names, classes) for title, names in sections.items())])


def _is(one: Any, parent: type) -> bool:
    return inspect.isclass(one) and issubclass(one, parent)


def _section(title: str, names: Named, classes: set[type]) -> str:
    lines = [f"## {title}\n"]
    for name, one in names.items():
        if _is(one, DspexError):
            lines.append(_line(_refusal(one), _summary(one)))
            continue
        if not callable(one):
            lines.append(_line(name, _constant(name)))
            continue
        plain = name in MADE or not (inspect.isclass(one) or inspect.isroutine(one))
        lines.append(_line(name if plain else _called(name, one), _summary(one)))
        if inspect.isclass(one):
            known = {key for parent in one.__mro__[1:] if parent in classes for key in dir(parent)}
            lines += [
                f"  {_line(*member)}" for member in _members(one, known.union(INNER.get(name, "").split()))
            ]
    return "\n".join(lines) + "\n"


def _line(code: str, words: str) -> str:
    return f"- `{code}`: {words}" if words else f"- `{code}`"


def _refusal(one: type[DspexError]) -> str:
    parents = ", ".join(parent.__name__ for parent in one.__bases__)
    return f"{one.__name__}({parents})"


def _members(cls: type, known: set[str]) -> Iterator[tuple[str, str]]:
    """Code and words of what users find in *cls*, in the order in which it is written there."""
    seen = set(known)
    for part in (part for part in (*type(cls).__mro__, *cls.__mro__) if part.__module__.startswith("dspex")):
        words = _attributes(part)
        for name in (*words, *vars(part)):
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            member = vars(part).get(name)
            if name in words:
                yield name, words[name]
            elif isinstance(member, property):
                yield name, _summary(member)
            elif callable(value := getattr(cls, name)) and value.__doc__ and not inspect.isclass(member):
                yield _called(name, value), _summary(value)


def _attributes(one: type | ModuleType) -> dict[str, str]:
    """The first sentences of the strings that stand under names, in a body and in its `__init__`."""
    try:
        tree: Any = ast.parse(textwrap.dedent(inspect.getsource(one)))
    except (OSError, TypeError):
        return {}
    body = tree.body[0].body if inspect.isclass(one) else tree.body
    lines = [*body, *(line for made in body if getattr(made, "name", "") == "__init__" for line in made.body)]
    found = {}
    for line, below in pairwise(lines):
        target = line.target if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [None])[0]
        name = getattr(target, "id", getattr(target, "attr", None))
        words = below.value if isinstance(below, ast.Expr) else None
        if name is not None and isinstance(words, ast.Constant):
            found[name] = _first(inspect.cleandoc(str(words.value)))
    return found


def _constant(name: str) -> str:
    """What stands under a constant of a public module."""
    return next(words[name] for where in PUBLIC if name in (words := _attributes(import_module(where))))


def _summary(one: Any) -> str:
    return _first(inspect.getdoc(one) or "")


def _first(words: str) -> str:
    """The first sentence of *words*, on one line."""
    paragraph = " ".join(words.partition("\n\n")[0].split())
    return re.split(r"(?<=[.!?]) (?=[A-Z`*])", paragraph)[0]


class _Shown:
    """A default as the page shows it."""

    def __init__(self, value: Any) -> None:
        plain = isinstance(value, bool | int | float | str | tuple | None)
        self._text = repr(value) if plain else "…"

    def __repr__(self) -> str:
        return self._text


def _called(name: str, one: Callable[..., Any]) -> str:
    """*one* with its arguments and what it gives."""
    # The arguments of a kind are those that attrs made; its `__new__` only refuses others.
    made = inspect.signature(one.__init__ if _is(one, Kind) else one)
    kept = [
        parameter.replace(
            annotation=parameter.empty,
            default=parameter.default if parameter.default is parameter.empty else _Shown(parameter.default),
        )
        for parameter in made.parameters.values()
        if parameter.name not in ("self", "unknown")  # the latter is there to be refused
    ]
    given = (
        "" if inspect.isclass(one) or made.return_annotation in _UNSAID else f" -> {made.return_annotation}"
    )
    return f"{'async ' if inspect.iscoroutinefunction(one) else ''}{name}{inspect.Signature(kept)}{given}"

"""
How values, records and changes look: to people, to `dspex set`, and in JSON.

No secret is in any of it: every way from a value to text goes through here, and asks its kind.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

from dspex import errors
from dspex.changes import Change
from dspex.commits import Declaration
from dspex.kinds import Kind
from dspex.kinds.plain import thaw
from dspex.records import Record

if TYPE_CHECKING:
    from dspex.optimizers import Trial

__all__ = [
    "TRIAL_HEADS",
    "as_json",
    "as_typed",
    "change_json",
    "change_line",
    "clock",
    "date",
    "declaration_json",
    "output_json",
    "output_text",
    "record_json",
    "short",
    "step_line",
    "trial_cells",
    "trial_json",
    "why",
]


WIDTH = 60
"""Characters of a value in a line or a table."""

TRIAL_HEADS = ("trial", "state", "score", "on", "s each", "values")
"""Of a table of trials."""


# ---- values ------------------------------------------------------------------------------------------


def short(kind: Kind[Any], value: Any) -> str:
    """*value* for a line."""
    text = kind.show(thaw(value))  # as lists and dicts: what keeps them from changing is nobody's business
    return text if len(text) <= WIDTH else f"{text[: WIDTH - 1]}…"


def as_typed(kind: Kind[Any], value: Any) -> str:
    """*value* in full, as `dspex set` reads it back; of a secret nothing."""
    if kind.secret:
        return kind.show(value)
    if isinstance(value, str) and _means(kind, value):
        return value
    return json.dumps(_plain(kind, value), default=_odd, ensure_ascii=False)


def _means(kind: Kind[Any], text: str) -> bool:
    try:
        meant = kind.parse(text)
    except (errors.InvalidValue, errors.LimitExceeded):
        return False
    return type(meant) is type(text) and bool(meant == text)


def as_json(kind: Kind[Any], value: Any) -> Any:
    """*value* as JSON has it; null for a secret."""
    return None if kind.secret else _finite(_plain(kind, value))


def _plain(kind: Kind[Any], value: Any) -> Any:
    # An array is nested lists here, as its kind reads them, and not the bytes that travel.
    return value.tolist() if hasattr(value, "tolist") else kind.dump(value)


def _finite(plain: Any) -> Any:
    """*plain* without what JSON does not have: bytes as base64, NaN and infinities as their names."""
    if isinstance(plain, float) and not math.isfinite(plain):
        return "NaN" if math.isnan(plain) else "Infinity" if plain > 0 else "-Infinity"
    if isinstance(plain, list | tuple):
        return [_finite(item) for item in plain]
    if isinstance(plain, Mapping):
        return {key: _finite(item) for key, item in plain.items()}
    return _odd(plain) if isinstance(plain, bytes | complex) else plain


def _odd(plain: Any) -> Any:
    if isinstance(plain, bytes):
        return {"base64": base64.b64encode(plain).decode("ascii")}
    return [_finite(plain.real), _finite(plain.imag)]


# ---- what programs give ------------------------------------------------------------------------------


def output_json(output: Any) -> Any:
    """What a program gave, as JSON has it: predictions and instances are objects, arrays nested lists."""
    if isinstance(output, list | tuple):
        return [output_json(item) for item in output]
    if isinstance(output, Mapping):
        return {key: output_json(item) for key, item in output.items()}
    if isinstance(output, Enum):
        return output.name
    if output is None or isinstance(output, bool | int | float | complex | str | bytes):
        return _finite(output)
    if hasattr(output, "tolist"):
        return output_json(output.tolist())
    if hasattr(output, "toDict"):  # a prediction
        return output_json(output.toDict())
    from dspex.pool.values import fields_of

    return {name: output_json(getattr(output, name)) for name in fields_of(type(output))}


def output_text(output: Any) -> str:
    """The same, for people."""
    return json.dumps(output_json(output), ensure_ascii=False)


# ---- records and changes -----------------------------------------------------------------------------


def record_json(kind: Kind[Any], record: Record) -> dict[str, Any]:
    """*record*; what an initial value does not have is null."""
    was_set = record.version > 0
    return {
        "name": record.name,
        "value": as_json(kind, record.value),
        **({"secret": True} if kind.secret else {}),
        "version": record.version,
        "revision": str(record.revision) if was_set else None,
        "source": record.source,
        "metadata": None if record.metadata is None else _finite(thaw(record.metadata)),
        "time": record.time if was_set else None,
    }


def change_json(kind: Kind[Any], change: Change) -> dict[str, Any]:
    """*change*: its record, and what was before."""
    return {**record_json(kind, change), "old": as_json(kind, change.old)}


def declaration_json(declared: Declaration) -> dict[str, Any]:
    """What was declared of a variable."""
    kind = declared.kind
    return {
        "kind": _finite(kind.describe()),
        "initial": as_json(kind, declared.initial),
        "description": declared.description,
        "owner": declared.owner,
    }


def change_line(kind: Kind[Any], change: Change) -> str:
    """*change* for people."""
    by = f" by {change.source}" if change.source else ""
    reason = why(change)
    return f"{step_line(kind, change)}{by}{f': {reason}' if reason else ''}"


def step_line(kind: Kind[Any], change: Change) -> str:
    """What *change* did, without who and why."""
    return f"{change.name} {short(kind, change.old)} -> {short(kind, change.value)}"


def why(record: Record) -> str:
    """The metadata of *record*: the reason if that is all, else as JSON."""
    if not record.metadata:
        return ""
    if set(record.metadata) == {"reason"}:
        return str(record.metadata["reason"])
    return json.dumps(_finite(thaw(record.metadata)), ensure_ascii=False)


def clock(seconds: float) -> str:
    """The time of day, here."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%H:%M:%S}"


def date(seconds: float) -> str:
    """Day and time, here; nothing for what was never set."""
    return f"{datetime.fromtimestamp(seconds).astimezone():%Y-%m-%d %H:%M:%S}" if seconds else ""


# ---- trials ------------------------------------------------------------------------------------------


def trial_json(trial: Trial) -> dict[str, Any]:
    """*trial*, its values as scalars."""
    return {
        "number": trial.number,
        "state": trial.state,
        "score": trial.score,
        "interval": _finite(trial.interval),
        "items": trial.items,
        "failures": trial.failures,
        "seconds": trial.seconds,
        "lm_calls": trial.lm_calls,
        "tokens": trial.tokens,
        "cost": trial.cost,
        "baseline": trial.baseline,
        "values": _finite(dict(trial.shown)),
        "error": trial.error,
    }


def trial_cells(trial: Trial) -> list[str]:
    """*trial* as a row under `TRIAL_HEADS`."""
    values = ", ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}"
        for name, value in trial.shown.items()
    )
    return [
        str(trial.number),
        trial.state,
        "" if trial.score is None else f"{trial.score:.3f}",
        str(trial.items),
        "" if trial.seconds is None else f"{trial.seconds:.2f}",
        values if trial.error is None else f"{values}: {trial.error}",
    ]

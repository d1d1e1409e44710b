"""What a shell offers for sessions, variables and labels: quickly, and nothing where it cannot be had."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import typer  # noqa: TC002 - it reads the annotations

from dspex.cli.opening import opened, opened_store
from dspex.records import SessionInfo
from dspex.session import Session

__all__ = ["assignments", "labels", "session_ids", "variable_names"]

T = TypeVar("T")

PATIENCE = 1
"""Seconds that somebody who presses Tab waits for a server."""


def session_ids(context: typer.Context, incomplete: str) -> list[str]:
    """The ids of the store's sessions."""
    try:
        with opened_store(_hurried(context.params["store"])) as store:
            infos: list[SessionInfo] = list(store.sessions())
    except Exception:
        return []
    return [info.id for info in infos if info.id.startswith(incomplete)]


def variable_names(context: typer.Context, incomplete: str) -> list[str]:
    """The variables of the session."""
    return [name for name in _of_session(context, lambda one: list(one.variables)) if _fits(name, incomplete)]


def assignments(context: typer.Context, incomplete: str) -> list[str]:
    """The same, each followed by what comes before its value."""
    return [f"{name}=" for name in variable_names(context, incomplete)]


def labels(context: typer.Context, incomplete: str) -> list[str]:
    """The labels of the session."""
    return [label for label in _of_session(context, lambda one: list(one.tags)) if _fits(label, incomplete)]


def _fits(name: str, incomplete: str) -> bool:
    return name.startswith(incomplete)


def _of_session(context: typer.Context, read: Callable[[Session], list[str]]) -> list[str]:
    try:
        with opened(_hurried(context.params["store"]), context.params["session"]) as session:
            return read(session)
    except Exception:  # nothing may be printed between what somebody types
        return []


def _hurried(url: str) -> str:
    if not url.startswith("grpc") or "deadline=" in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}deadline={PATIENCE}"

"""The command that looks whether everything is there that a session needs: doctor."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Annotated, Literal

import attrs
import typer

import dspex
from dspex import errors
from dspex.cli import printing
from dspex.cli.completing import session_ids
from dspex.cli.exits import REFUSED
from dspex.cli.opening import opened, opened_store
from dspex.cli.options import Json
from dspex.cli.rendering import date
from dspex.stores.base import Store

__all__ = ["doctor"]

ROUNDS = 20
"""How often the store is asked to see how long it takes."""


@attrs.frozen
class Finding:
    """What one look found."""

    about: str
    state: Literal["ok", "lacking", "broken"]
    """`lacking` is what only some need."""
    words: str


def doctor(
    store: Annotated[
        str | None,
        typer.Option("--store", metavar="URL", envvar="DSPEX_STORE", help="A store to look at as well."),
    ] = None,
    session: Annotated[
        str | None,
        typer.Option(
            "--session",
            metavar="ID",
            envvar="DSPEX_SESSION",
            autocompletion=session_ids,
            help="A session in it.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Look whether something is missing or broken."""
    found: list[Finding] = []
    for finding in _look(store, session):
        found.append(finding)
        if not as_json:
            printing.lines([f"{finding.state:<8} {finding.about}: {finding.words}"])
    if as_json:
        printing.answer([attrs.asdict(finding) for finding in found])
    if any(finding.state == "broken" for finding in found):
        raise typer.Exit(REFUSED)


def _look(store: str | None, session: str | None) -> Iterator[Finding]:
    yield Finding("python", "ok", f"{sys.version.split()[0]} at {sys.executable}")
    yield Finding("dspex", "ok", f"{dspex.__version__} at {Path(dspex.__file__).parent}")
    yield from _packages()
    yield _model()
    if store is not None:
        yield from _store(store, session)


# ---- packages ----------------------------------------------------------------------------------------


def _packages() -> Iterator[Finding]:
    from importlib import metadata

    try:
        about = metadata.metadata("dspex")
        wanted = metadata.requires("dspex") or []
    except metadata.PackageNotFoundError:
        yield Finding("extras", "lacking", "dspex runs from a folder that nobody has installed")
        return
    yield _required("needs", wanted, "")
    for extra in sorted(about.get_all("Provides-Extra") or ()):
        yield _required(f"extra {extra}", wanted, extra)


def _required(about: str, wanted: list[str], extra: str) -> Finding:
    """Whether what dspex wants for *extra* is here; without an extra, what it cannot be without."""
    from importlib import metadata

    from packaging.requirements import Requirement

    have: list[str] = []
    missing: list[str] = []
    wrong: list[str] = []
    for requirement in map(Requirement, wanted):
        for_extra = requirement.marker is not None and "extra" in str(requirement.marker)
        if for_extra != bool(extra) or (
            requirement.marker and not requirement.marker.evaluate({"extra": extra})
        ):
            continue
        if requirement.name == "dspex":  # another extra, which has a line of its own
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(requirement.name)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            have.append(f"{requirement.name} {version}")
        else:
            wrong.append(f"{requirement.name} {version} must be {requirement.specifier}")
    if wrong:
        return Finding(about, "broken", "; ".join(wrong))
    if missing:
        state: Literal["lacking", "broken"] = "lacking" if extra else "broken"
        how = f": {errors.installing(extra)}" if extra else ""
        return Finding(about, state, f"{', '.join(missing)} not installed{how}")
    return Finding(about, "ok", ", ".join(have) or "nothing of its own")


def _model() -> Finding:
    from dspex import lm

    try:
        model = lm.default()
    except (errors.NoLanguageModel, errors.MissingExtra) as error:
        return Finding("model", "lacking", error.message)
    return Finding("model", "ok", str(model.model))


# ---- the store ---------------------------------------------------------------------------------------


def _store(url: str, session: str | None) -> Iterator[Finding]:
    try:
        with opened_store(url) as store:
            seconds = sorted(_seconds(store) for _ in range(ROUNDS))[ROUNDS // 2]
            where = errors.without_login(url)
            words = f"{where}, sessions: {len(store.sessions())}, listed in {seconds * 1000:.2f} ms"
            yield Finding("store", "ok", words)
            yield from _sqlite(url)
            if session is not None:
                yield _session(url, session)
    except errors.DspexError as error:
        yield Finding("store", "broken", error.message)


def _seconds(store: Store) -> float:
    start = perf_counter()
    store.sessions()
    return perf_counter() - start


def _sqlite(url: str) -> Iterator[Finding]:
    if not url.startswith("sqlite:"):
        return
    import os
    import sqlite3

    from dspex.stores.sqlite_file import DURABILITY, Location

    durability = Location.of_url(url).durability
    survives = "a power cut" if durability == "full" else "the death of the process, not a power cut"
    words = f"{durability} (synchronous={DURABILITY[durability]}): a commit survives {survives}"
    yield Finding("durability", "ok", words)
    yield Finding("sqlite", "ok", f"{sqlite3.sqlite_version}; process {os.getpid()} has the lock, this one")


def _session(url: str, session: str) -> Finding:
    try:
        with opened(url, session) as handle:
            newest = max((record.time for record in handle.snapshot().records.values()), default=0.0)
            when = f", last set {date(newest)}" if newest else ""
            words = f"{session}, variables: {len(handle.variables)}, at revision {handle.revision}{when}"
            return Finding("session", "ok", words)
    except errors.DspexError as error:
        return Finding("session", "broken", error.message)

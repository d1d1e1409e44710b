"""What somebody types after `dspex set`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Self

import typer

from dspex.session import Session
from dspex.stores import refusals

__all__ = ["Assignments", "expected_versions", "fetched"]


class Assignments(dict[str, str]):
    """Texts by the names that they are to be the values of."""

    @classmethod
    def read(cls, arguments: Iterable[str], *, literal: bool) -> Self:
        """
        What *arguments* say, `name=value` each; files and stdin are read unless they are meant *literal*.

        Raises:
            BadParameter: One of them says something else.
        """
        made = cls()
        for argument in arguments:
            name, equals, text = argument.partition("=")
            if not equals:
                raise typer.BadParameter(f"'{name}' is not NAME=VALUE.")
            if name in made:
                raise typer.BadParameter(f"'{name}' is given twice.")
            made[name] = text if literal else fetched(text)
        if not literal and sum(argument.endswith("=-") for argument in arguments) > 1:
            raise typer.BadParameter("stdin is one value, and - is given twice.")
        return made

    def parsed(self, session: Session) -> dict[str, Any]:
        """The values, as the kinds of *session* read them."""
        values = {}
        for name, text in self.items():
            session.record(name)
            try:
                values[name] = session.variables[name].kind.parse(text)
            except Exception as error:
                raise refusals.refused(session.id, name, error, session.variables) from None
        return values


def fetched(text: str) -> str:
    """
    *text*, or what it stands for: `@FILE` for what a file has, `-` for what stdin has.

    Raises:
        BadParameter: That cannot be read, or is no text.
    """
    if text != "-" and not text.startswith("@"):
        return text
    where = "stdin" if text == "-" else text[1:]
    try:
        # As bytes: reading text would change the ends of lines that are not Unix's.
        data = sys.stdin.buffer.read() if text == "-" else Path(where).read_bytes()
        # The end of the last line is what `dspex get` and editors have put there.
        return data.decode("utf-8").removesuffix("\n")
    except OSError as error:
        raise typer.BadParameter(f"{where} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{where} is not text in UTF-8.") from None


def expected_versions(texts: Iterable[str], names: Collection[str]) -> dict[str, int]:
    """
    The versions that *names* must have: `version` where there is one name, else `name=version` each.

    Raises:
        BadParameter: One of *texts* says something else.
    """
    versions: dict[str, int] = {}
    for text in texts:
        name, _, version = text.rpartition("=")
        if not name and len(names) == 1:
            (name,) = names
        if name not in names or name in versions or not version.isdecimal():
            raise typer.BadParameter(
                f"'{text}' is not {'VERSION' if len(names) == 1 else 'NAME=VERSION of a name that is set'}.",
                param_hint="--expect",
            )
        versions[name] = int(version)
    return versions

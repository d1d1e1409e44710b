"""Where a Redis or Valkey server is, and how it is to be used: what a URL says."""

from __future__ import annotations

import math
import re
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import attrs

from dspex import errors
from dspex.stores.urls import split

__all__ = ["Durability", "Location", "Timing"]

PARAMETERS = ("ca", "db", "deadline", "durability", "max-staleness", "service")

SCHEMES = {
    "redis": "tcp",
    "rediss": "tcp",
    "redis+unix": "unix",
    "redis+sentinel": "sentinel",
    "rediss+sentinel": "sentinel",
    "redis+cluster": "cluster",
    "rediss+cluster": "cluster",
    "valkey": "tcp",
    "valkeys": "tcp",
    "valkey+unix": "unix",
    "valkey+sentinel": "sentinel",
    "valkey+cluster": "cluster",
}
"""How the servers of a scheme are found."""


@attrs.frozen(kw_only=True)
class Timing:
    """Seconds."""

    deadline: float = 5.0
    """A call that has no answer after so long fails."""

    poll: float = 1.0
    """The newest revision of every session is asked for this often, whatever was pushed."""

    silence: float = 5.0
    """A connection that does not answer for so long is taken for dead."""

    backoff: tuple[float, float] = (0.05, 5.0)
    """The longest wait before the first attempt to connect again, and before any; in between it doubles."""

    linger: float = 10.0
    """A connection that no session uses is kept for so long."""

    def divided(self, by: float) -> Timing:
        """All of them, the deadline of a call aside, *by* times shorter."""
        low, high = self.backoff
        return Timing(
            deadline=self.deadline,
            poll=self.poll / by,
            silence=self.silence / by,
            backoff=(low / by, high / by),
            linger=self.linger / by,
        )


@attrs.frozen
class Durability:
    """What a commit waits for before `set` returns."""

    level: str = "memory"
    replicas: int = 0

    @classmethod
    def parse(cls, text: str) -> Durability:
        """`memory`, `fsynced` or `replicated:N`."""
        if text in ("memory", "fsynced"):
            return cls(text)
        found = re.fullmatch(r"replicated:([1-9]\d?)", text)
        if found is None:
            raise errors.InvalidValue.expecting(
                "'memory', 'fsynced' or 'replicated:' and how many", errors.shown(text, 60)
            ).at("durability")
        return cls("replicated", int(found[1]))

    def __str__(self) -> str:
        return f"replicated:{self.replicas}" if self.replicas else self.level


@attrs.frozen
class Location:
    """Servers, and how this process wants to be with them. Stores of equal locations share connections."""

    how: str
    """`tcp`, `unix`, `sentinel` or `cluster`."""
    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    user: str | None = None
    password: str | None = attrs.field(default=None, repr=False)
    tls: bool = False
    ca: str | None = None
    db: int = 0
    service: str = ""
    """The name under which Sentinels know the primary."""
    durability: Durability = attrs.field(factory=Durability)
    max_staleness: float = 30.0
    """Seconds without contact after which values are not read any more."""
    timing: Timing = attrs.field(factory=Timing)
    scheme: str = "redis"

    @classmethod
    def parse(cls, url: str, *, timing: Timing | None = None) -> Location:
        """
        What *url* says.

        Raises:
            InvalidValue: It is no address of a server, or has a parameter that nobody knows.
        """
        parts = split(url)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name in given:
            if name not in PARAMETERS:
                raise errors.InvalidValue.expecting(
                    f"one of {errors.listed(PARAMETERS)}{errors.did_you_mean(name, PARAMETERS)}",
                    errors.shown(name, 60),
                ).at("a parameter of the store's URL")
        how = SCHEMES.get(parts.scheme, "")
        made = timing or Timing()
        if "deadline" in given:
            made = attrs.evolve(made, deadline=_seconds("deadline", given["deadline"]))
        tls = parts.scheme.startswith(("rediss", "valkeys"))
        if "ca" in given and not tls:
            raise errors.InvalidValue.expecting("a part of a rediss:// URL only", "ca").at("the store's URL")
        user, password, hosts = _authority(parts.netloc, how, 26379 if how == "sentinel" else 6379, url)
        path, db = parts.path, given.get("db", "")
        if how != "unix":
            path, db = "", path.strip("/") or db
        service = given.get("service", "")
        if (
            (how == "unix") == (not path)
            or bool(hosts) == (how == "unix")
            or (how == "sentinel") != bool(service)
        ):
            raise _unusable(url)
        number = _database(db, url)
        if how == "cluster" and number:
            raise errors.InvalidValue.expecting("0 in a cluster", str(number)).at("the database")
        return cls(
            how,
            hosts,
            path,
            user,
            password,
            tls,
            given.get("ca"),
            number,
            service,
            Durability.parse(given.get("durability", "memory")),
            _seconds("max-staleness", given.get("max-staleness", "30")),
            made,
            parts.scheme,
        )

    @property
    def shown(self) -> str:
        """For people: without secrets."""
        where = self.path or ",".join(_address(*one) for one in self.hosts)
        more = f"{'?db=' if self.path else '/'}{self.db}" if self.db else ""
        return f"{self.scheme}://{where}{more}" + (f"?service={self.service}" if self.service else "")

    @property
    def url(self) -> str:
        """All of it, with the login: for processes that are trusted like this one."""
        user, password = (quote(one or "", safe="") for one in (self.user, self.password))
        login = f"{user}:{password}@" if user or password else ""
        hosts = ",".join(_address(*one) for one in self.hosts)
        said = {
            "db": self.db or None,
            "service": self.service or None,
            "ca": self.ca,
            "durability": self.durability,
            "deadline": self.timing.deadline,
            "max-staleness": self.max_staleness,
        }
        query = urlencode({name: one for name, one in said.items() if one is not None})
        return f"{self.scheme}://{login}{hosts}{self.path}?{query}"


def _authority(
    netloc: str, how: str, port: int, url: str
) -> tuple[str | None, str | None, tuple[tuple[str, int], ...]]:
    login, _, where = netloc.rpartition("@")
    user, _, password = login.partition(":")
    hosts = []
    for one in where.split(",") if where else ():
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?", one)
        if found is None or not 0 < int(found[2] or port) < 65536:
            raise _unusable(url)
        hosts.append((found[1].strip("[]"), int(found[2] or port)))
    if how == "tcp" and len(hosts) > 1:
        raise _unusable(url)
    if how and how != "unix" and not hosts:
        hosts.append(("localhost", port))
    return unquote(user) or None, unquote(password) or None, tuple(hosts)


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _unusable(url: str) -> errors.InvalidValue:
    return errors.InvalidValue.expecting(
        "redis://host:port/db, rediss://…, redis+unix:///path, redis+sentinel://host:port,…?service=name or "
        "redis+cluster://host:port,…",
        errors.shown(errors.without_login(url).partition("?")[0], 80),
    ).at("the URL of a Redis store")


def _database(text: str, url: str) -> int:
    if text and not re.fullmatch(r"\d{1,4}", text):
        raise _unusable(url)
    return int(text or 0)


def _seconds(name: str, text: Any) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise errors.InvalidValue.expecting("more than 0 seconds, or inf", errors.shown(text, 60)).at(name)
    return seconds

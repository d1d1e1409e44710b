"""Where a server is, and how it is reached: what a URL says."""

from __future__ import annotations

import ipaddress
import math
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import attrs

from dspex import errors
from dspex.rpc.extra import grpc
from dspex.rpc.limits import MESSAGE, Timers
from dspex.stores.urls import split

__all__ = ["Address"]

OPTIONS = (
    ("grpc.max_receive_message_length", 2 * MESSAGE),
    ("grpc.max_send_message_length", MESSAGE),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    # Another connection must not wait because one to the same server failed before: that wait is ours.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)

PARAMETERS = ("token-file", "ca", "tls", "deadline", "max-staleness")


@attrs.frozen
class Address:
    """
    A server, and how this client wants to be with it. Two stores with equal addresses share a connection.
    """

    targets: tuple[str, ...]
    """For grpc: servers of one store, each of which will do."""
    shown: str
    """For people: without secrets."""
    token: str | None = attrs.field(default=None, repr=False)
    tls: bool = False
    ca: bytes | None = attrs.field(default=None, repr=False)
    max_staleness: float = 30.0
    """Seconds without contact after which values are not read any more."""
    timers: Timers = attrs.field(factory=Timers)

    @classmethod
    def parse(
        cls,
        url: str,
        *,
        token: str | None = None,
        ca: str | Path | None = None,
        max_staleness: float | None = None,
        timers: Timers | None = None,
    ) -> Address:
        """
        What *url* says, and the arguments, which go over it.

        Raises:
            InvalidValue: It is no address of a server, or has a parameter that nobody knows.
            StoreUnavailable: A file that it names cannot be read.
        """
        parts = split(url)
        given = dict(parse_qsl(parts.query, keep_blank_values=True))
        for name in given:
            if name not in PARAMETERS:
                raise errors.InvalidValue.expecting(
                    f"one of {errors.listed(PARAMETERS)}{errors.did_you_mean(name, PARAMETERS)}",
                    errors.shown(name, 60),
                ).at("a parameter of the store's URL")
        targets, local = _targets(url)
        if ca is None and "ca" in given:
            ca = given["ca"]
        if token is None and "token-file" in given:
            token = _read(given["token-file"]).decode("ascii", "replace").strip()
        tls = ca is not None or _switch(given.get("tls", "off"))
        if token is not None:
            _check_token(token, safe=tls or local, url=url)
        made = timers or Timers()
        if "deadline" in given:
            made = attrs.evolve(made, deadline=_seconds("deadline", given["deadline"]))
        if max_staleness is None:
            max_staleness = _seconds("max-staleness", given.get("max-staleness", "30"))
        return cls(
            targets,
            f"{parts.scheme}://{parts.netloc}{parts.path}",
            token,
            tls,
            None if ca is None else _read(str(ca)),
            max_staleness,
            made,
        )

    def channel(self, attempt: int = 0) -> grpc.Channel:
        """A new connection; each attempt is made with the next server."""
        target = self.targets[attempt % len(self.targets)]
        if self.tls:
            return grpc.secure_channel(target, grpc.ssl_channel_credentials(self.ca), options=OPTIONS)
        return grpc.insecure_channel(target, options=OPTIONS)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What every call carries."""
        return () if self.token is None else (("authorization", f"Bearer {self.token}"),)


def _targets(url: str) -> tuple[tuple[str, ...], bool]:
    """The targets for grpc, and whether what is sent there stays on this machine."""
    parts = split(url)
    found, local = [], True
    if parts.scheme == "grpc+unix" and not parts.netloc:
        found = [f"unix:{path}" for path in parts.path.split(",") if path.startswith("/") and len(path) > 1]
        if len(found) == len(parts.path.split(",")):
            return tuple(found), True
    elif parts.scheme == "grpc" and not parts.path.strip("/") and "@" not in parts.netloc:
        for one in parts.netloc.split(","):
            server = urlsplit(f"//{one}")
            try:
                host, port = server.hostname, server.port
            except ValueError:
                host = port = None
            if not host or not port:
                break
            found.append(f"{f'[{host}]' if ':' in host else host}:{port}")
            local = local and _loopback(host)
        else:
            return tuple(found), local
    raise errors.InvalidValue.expecting(
        "grpc://host:port, with more of them after commas, or grpc+unix:///path",
        errors.shown(errors.without_login(url).partition("?")[0], 80),
    ).at("the URL of a gRPC store")


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_token(token: str, *, safe: bool, url: str) -> None:
    if not token.isascii() or not token.isprintable() or not token or " " in token:
        raise errors.InvalidValue.expecting("one line of visible ASCII", "something else").at("the token")
    if not safe:
        raise errors.PermissionDenied(
            "a token is sent only over TLS or inside one machine: give ?tls=on, or ?ca= with the certificate "
            "of the server's authority.",
            url=url.partition("?")[0],
        )


def _read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise errors.StoreUnavailable(f"{path} cannot be read: {error.strerror}.", path=path) from None


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise errors.InvalidValue.expecting("'on' or 'off'", errors.shown(text, 60)).at("tls")
    return text == "on"


def _seconds(name: str, text: Any) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds > 0:
        raise errors.InvalidValue.expecting("more than 0 seconds, or inf", errors.shown(text, 60)).at(name)
    return seconds

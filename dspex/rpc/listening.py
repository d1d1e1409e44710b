"""Where a server listens, and whether it may."""

from __future__ import annotations

import os
import socket
import stat
import tempfile
from pathlib import Path

import attrs

from dspex import errors

__all__ = ["Tls", "check_listen", "private_socket"]

PREFIX = "unix://"


@attrs.frozen
class Tls:
    """The certificate chain of a server and its private key, both as files in PEM."""

    certificate: Path = attrs.field(converter=Path)
    key: Path = attrs.field(converter=Path)


def private_socket() -> str:
    """A new address that only the user of this process can reach."""
    return f"{PREFIX}{tempfile.mkdtemp(prefix='dspex-')}/s"


def check_listen(listen: str, *, tls: bool, tokens: bool) -> str:
    """
    The address that *listen* (`unix:///path` or `host:port`) is for grpc.

    Raises:
        PermissionDenied: Others could reach it, and it has not both TLS and tokens.
        StoreUnavailable: Another server is there.
    """
    if listen.startswith(PREFIX):
        path = Path(listen.removeprefix(PREFIX))
        if not path.is_absolute():
            raise _wrong(listen)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        where = path.parent.stat()
        private = where.st_uid == os.geteuid() and not where.st_mode & 0o077
        if not private and not tokens:
            raise errors.PermissionDenied(
                f"others may enter {path.parent}: chmod 700 it, or give the server tokens.", listen=listen
            )
        _free(path)
        return f"unix:{path}"
    host, colon, port = listen.rpartition(":")
    if not (colon and host and "/" not in host and port.isdigit() and int(port) < 65536):
        raise _wrong(listen)
    if not (tls and tokens):
        lacking = " and ".join(
            name for name, given in (("a certificate", tls), ("tokens", tokens)) if not given
        )
        raise errors.PermissionDenied(
            f"a server on {errors.shown(listen, 80)} needs {lacking}: whoever reaches a port may be anybody. "
            "On one machine listen on unix:///path.",
            listen=listen,
        )
    return listen


def _wrong(listen: str) -> errors.InvalidValue:
    return errors.InvalidValue.expecting("unix:///absolute/path or host:port", errors.shown(listen, 80)).at(
        "listen"
    )


def _free(path: Path) -> None:
    """Make room at *path*, where a server that was killed may have left its socket."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise errors.StoreUnavailable(f"{path} is there and is no socket.", path=str(path))
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise errors.StoreUnavailable(f"another server listens on {path}.", path=str(path))

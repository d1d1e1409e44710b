"""One connection to a Redis or Valkey server; the one place that imports redis."""

from __future__ import annotations

import re
import socket
import ssl
import struct
from contextlib import suppress
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from dspex import errors

if TYPE_CHECKING:
    from dspex.stores.redis_url import Location

try:
    import hiredis
    import redis
    from redis.crc import key_slot
    from redis.sentinel import MasterNotFoundError, Sentinel
except ImportError as error:
    raise errors.missing_extra("Redis stores", "redis") from error

__all__ = [
    "LIBRARY",
    "MISSING",
    "Address",
    "Lost",
    "Push",
    "Refused",
    "Wire",
    "find_primary",
    "frame",
    "slot_of",
    "source",
]

LIBRARY = "dspex_1"
"""The server's function library, with the version of its functions and of what they keep."""

OLDEST = {"redis": (7, 0), "valkey": (8, 0)}
"""The first versions that have all that is needed."""

PARTS = ("functions", "sessions", "moving")
"""The files of the library, in their order."""

CHUNK = 65_536

Push = hiredis.PushNotification
Address = tuple[str, int]

MISSING = object()


class Refused(Exception):
    """What a server answers that refuses: a word, and a sentence."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.code = text.partition(" ")[0]


class Lost(Exception):
    """The connection is of no use any more; another one may be."""


def frame(*arguments: bytes) -> bytes:
    """A command as bytes."""
    return b"*%d\r\n%b" % (
        len(arguments),
        b"".join([b"$%d\r\n%b\r\n" % (len(one), one) for one in arguments]),
    )


def source() -> str:
    """The library of server functions."""
    folder = files("dspex.stores")
    return "\n".join(folder.joinpath(f"redis_{part}.lua").read_text() for part in PARTS)


class Wire:
    """
    A connection. redis-py makes it: sockets, TLS, login. What goes over it is read here, as replies, pushes
    and refusals in the order in which they come; a refusal is returned, not raised.

    Raises:
        Lost: It could not be made now.
        PermissionDenied: The login is refused.
        StoreUnavailable: The server is none that this store can use.
    """

    __slots__ = ("_connection", "_gets", "_reader", "sock", "version")

    def __init__(self, location: Location, address: Address | None, timeout: float | None = None) -> None:
        self._connection = _connection(location, address, timeout)
        try:
            self._connection.connect()
        except redis.AuthenticationError as error:
            raise _login(location, error) from None
        except redis.ResponseError as error:
            raise self._unusable(location, error) from None
        except (redis.RedisError, OSError) as error:
            if "NOPERM" in str(error) or "WRONGPASS" in str(error):
                raise _login(location, error) from None
            raise Lost(str(error)) from None
        try:
            self.version = _version(self._connection.handshake_metadata, location)
        except BaseException:
            self.close()
            raise
        # redis-py has no public way to have its socket, and its own reading costs as much as the server.
        self.sock: socket.socket = self._connection._sock
        self._reader = hiredis.Reader(replyError=Refused, protocolError=Lost, notEnoughData=MISSING)
        self._gets = self._reader.gets
        self.wait_at_most(location.timing.deadline)

    def wait_at_most(self, seconds: float) -> None:
        """Take it for lost when it neither takes nor gives anything for so long."""
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.settimeout(seconds)
            return
        # Python would ask first whether there is something, and then take it: twice the system, and twice the
        # lock that all threads share.
        self.sock.settimeout(None)
        whole, rest = divmod(max(seconds, 0.000001), 1)
        limit = struct.pack("@ll", int(whole), int(rest * 1_000_000))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def _unusable(self, location: Location, error: Exception) -> errors.DspexError | Lost:
        text = str(error)
        if text.startswith(("LOADING", "Redis is loading", "BUSY", "MASTERDOWN")):
            return Lost(text)
        if "unknown command" in text or "NOPROTO" in text:
            return _too_old(location, "one without HELLO 3")
        return _login(location, error)

    @property
    def is_replica(self) -> bool:
        """Whether the server follows another one, which has the truth."""
        return bool(self._connection.handshake_metadata.get(b"role") != b"master")

    def send(self, data: bytes) -> None:
        """Send commands."""
        try:
            self.sock.sendall(data)
        except BlockingIOError:
            raise Lost("timed out") from None
        except (OSError, ValueError) as error:
            raise Lost(str(error) or type(error).__name__) from None

    def read(self) -> Any:
        """The next reply, push or refusal. Waits as long as the socket's timeout says."""
        reply = self._gets()
        while reply is MISSING:
            self.receive()
            reply = self._gets()
        return reply

    def receive(self) -> None:
        """Take what has come, or wait for it."""
        try:
            data = self.sock.recv(CHUNK)
        except (TimeoutError, BlockingIOError):
            raise Lost("no answer in time") from None
        except (OSError, ValueError) as error:
            raise Lost(str(error) or type(error).__name__) from None
        if not data:
            raise Lost("closed by the server")
        self._reader.feed(data)

    def next(self) -> Any:
        """The next reply, push or refusal that has come whole; MISSING when there is none."""
        return self._gets()

    @property
    def pending(self) -> bool:
        """Whether more has come than the socket tells."""
        return isinstance(self.sock, ssl.SSLSocket) and self.sock.pending() > 0

    def ask(self, *arguments: bytes) -> Any:
        """The reply to a command, where nothing else goes over the connection."""
        self.send(frame(*arguments))
        return self.read()

    def abort(self) -> None:
        """Have whoever reads or writes find that it is lost."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of it. In a child of fork the parent's connection goes on."""
        self._connection.disconnect()


def _connection(location: Location, address: Address | None, timeout: float | None) -> Any:
    deadline = location.timing.deadline
    settings: dict[str, Any] = {
        "username": location.user,
        "password": location.password,
        "db": location.db,
        "protocol": 3,
        "socket_timeout": deadline,
        "socket_connect_timeout": min(deadline, timeout or deadline),
        "driver_info": None,
    }
    if location.path:
        made: Any = redis.UnixDomainSocketConnection
        return made(location.path, **settings)
    host, port = address or location.hosts[0]
    if location.tls:
        made = redis.SSLConnection
        settings["ssl_ca_certs"] = location.ca
    else:
        made = redis.Connection
    return made(host=host, port=port, **settings)


def find_primary(location: Location) -> Address:
    """Ask the Sentinels of *location* where the primary is now."""
    timeout = location.timing.deadline / (1 + len(location.hosts))
    settings: dict[str, Any] = {"socket_timeout": timeout, "socket_connect_timeout": timeout}
    if location.tls:
        settings |= {"ssl": True, "ssl_ca_certs": location.ca}
    try:
        asked: Any = Sentinel
        with asked(location.hosts, **settings) as sentinels:
            host, port = sentinels.discover_master(location.service)
    except MasterNotFoundError:
        raise Lost(f"no Sentinel knows a primary of {errors.shown(location.service, 60)}") from None
    except (redis.RedisError, OSError) as error:
        raise Lost(f"no Sentinel answers: {error}") from None
    return str(host), int(port)


def _version(told: Any, location: Location) -> tuple[str, tuple[int, ...]]:
    name = told.get(b"server", b"").decode("ascii", "replace")
    text = told.get(b"version", b"0").decode("ascii", "replace")
    version = tuple(int(part) for part in re.findall(r"\d+", text)[:3])
    if version < OLDEST.get(name, (7, 0)):
        raise _too_old(location, f"{name} {text}")
    return name, version


def _too_old(location: Location, what: str) -> errors.StoreUnavailable:
    return errors.StoreUnavailable(
        f"the server at {location.shown} is too old ({what}): Redis 7.0 or Valkey 8.0 is needed, or later.",
        address=location.shown,
    )


def _login(location: Location, error: Exception) -> errors.PermissionDenied:
    return errors.PermissionDenied(
        f"the server at {location.shown} refuses the login: {errors.shown(str(error))[1:-1]}",
        address=location.shown,
        authenticated=False,
    )


def slot_of(key: bytes) -> int:
    """The slot of a cluster that a key is in."""
    return int(key_slot(key))

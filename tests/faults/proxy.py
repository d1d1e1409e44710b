"""A proxy between client and server that breaks things on demand."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from contextlib import suppress


class Proxy:
    """
    Forwards a TCP port or a Unix socket to a Unix socket, in a thread of its own.

    What is set applies to all connections at once: `delay` seconds for every chunk; `drop_up` and `drop_down`
    swallow what comes (with both a connection is half-open: nobody is told); `refuse` closes what is new.
    `reset()` ends all connections, on TCP with RST.
    """

    def __init__(self, upstream, listen=None):
        self.upstream = upstream
        self.listen = listen
        self.delay = 0.0
        self.drop_up = False
        self.drop_down = False
        self.refuse = False
        self.opened = 0
        self.times = []
        self._pairs = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        ready = threading.Event()
        self._ready = ready
        self._thread.start()
        assert ready.wait(10)
        return self

    __enter__ = start

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.call_soon(self._ready.set)
        self._loop.run_forever()
        for listening in self._server.sockets:
            self._loop.remove_reader(listening.fileno())
        self._turns()  # in which those begin who have just come; a server that is closed loses them
        self._server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._turns()  # in which transports close themselves
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _turns(self):
        for _ in range(5):
            self._loop.run_until_complete(asyncio.sleep(0))

    async def _serve(self):
        if self.listen is not None:
            self._server = await asyncio.start_unix_server(self._accept, self.listen)
        else:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
            self.port = self._server.sockets[0].getsockname()[1]

    @property
    def url(self):
        return f"grpc+unix://{self.listen}" if self.listen else f"grpc://127.0.0.1:{self.port}"

    def _accept(self, reader, writer):
        task = self._loop.create_task(self._forward(reader, writer))
        task.add_done_callback(lambda _: writer.transport.abort())  # also if it never begins

    async def _forward(self, reader, writer):
        self.opened += 1
        self.times.append(time.monotonic())
        if self.refuse:
            writer.transport.abort()
            return
        try:
            up_reader, up_writer = await asyncio.open_unix_connection(self.upstream)
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()
            return
        pair = (writer, up_writer)
        self._pairs.add(pair)
        with suppress(asyncio.CancelledError):  # of the end of the proxy, which asyncio would log
            await asyncio.gather(
                self._pump(reader, up_writer, "drop_up"), self._pump(up_reader, writer, "drop_down")
            )
        self._abort(pair)

    async def _pump(self, reader, writer, drop):
        with suppress(OSError, asyncio.IncompleteReadError):
            while data := await reader.read(65536):
                if self.delay:
                    await asyncio.sleep(self.delay)
                if not getattr(self, drop):
                    writer.write(data)
                    await writer.drain()
        # The end of one direction is the end of both, unless nothing is let through.
        while self.drop_up and self.drop_down:  # noqa: ASYNC110 - set by tests, in other threads
            await asyncio.sleep(0.005)
        writer.transport.abort()

    def _abort(self, pair):
        self._pairs.discard(pair)
        for writer in pair:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.family == socket.AF_INET:
                with suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    def reset(self):
        """End all connections."""
        done = threading.Event()

        def end():
            for pair in list(self._pairs):
                self._abort(pair)
            done.set()

        self._loop.call_soon_threadsafe(end)
        assert done.wait(10)

    def half_open(self):
        """Swallow everything from now on, without a word."""
        self.drop_up = self.drop_down = True

    def heal(self):
        """Let new connections work; those that were half-open are dead."""
        self.drop_up = self.drop_down = self.refuse = False
        self.reset()

"""Frames over a socket pair: what a pool and its worker say to each other."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from enum import IntEnum
from typing import Any

import msgspec

from dspex import errors

__all__ = ["FRAME", "Channel", "Say"]

FRAME = 64 * 1024 * 1024
"""The most bytes of one message."""

_HEAD = struct.Struct("<I")
_READ = 256 * 1024
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[Any]).decode


class Say(IntEnum):
    """What a message is; its first item. The comments are the items that follow."""

    # To a worker, on the channel of its calls.
    BEGIN = 1  # [how, main], [program, …], settings
    CALL = 2  # number, program, inputs, session or None, deadline or None, pin, stream window, carrier

    # To a worker, on the channel that it listens to while it works.
    PING = 10  # number
    CANCEL = 11  # number of the call
    MORE = 12  # number of the call, how many more pieces of the stream it may send
    ANSWER = 13  # number of the question, value
    REFUSAL = 14  # number of the question, failure

    # From a worker.
    READY = 30  # pid
    BROKEN = 31  # failure
    DONE = 32  # number, value, revision of the session or None, resident bytes
    FAILED = 33  # number, failure, revision, resident bytes
    CHUNK = 34  # number, value
    ASK = 35  # number of the call, of the question, what, inputs
    PONG = 36  # number


class Channel:
    """One end of a socket pair. Any thread may send; one at a time receives."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self._lock = threading.Lock()
        self._left = bytearray()

    def fileno(self) -> int:
        """For selectors."""
        return self.socket.fileno()

    def send(self, *message: Any) -> None:
        """
        Send *message*.

        Raises:
            LimitExceeded: It is larger than a message may be.
            OSError: The other end is gone.
        """
        data = _encode(message)
        if len(data) > FRAME:
            raise errors.LimitExceeded(
                f"what is to travel takes {len(data)} bytes; the limit is {FRAME}. Store it, and send "
                "where it is.",
                limit=FRAME,
            )
        with self._lock:
            self.socket.sendall(_HEAD.pack(len(data)) + data)

    def receive(self) -> list[list[Any]]:
        """What has come, at least one message, waiting for it; nothing when the other end is gone."""
        while True:
            messages, alive = self.poll()
            if messages or not alive:
                return messages

    def poll(self) -> tuple[list[list[Any]], bool]:
        """What has come, and whether the other end is still there. Waits no longer than the socket does."""
        try:
            data = self.socket.recv(_READ)
        except ConnectionError:
            return [], False
        except BlockingIOError:
            return [], True
        if not data:
            return [], False
        if not self._left and len(data) >= 4 and len(data) - 4 == _HEAD.unpack_from(data)[0]:
            return [_decode(data[4:])], True  # as good as always
        self._left += data
        return list(self._whole()), True

    def _whole(self) -> Iterator[list[Any]]:
        left, start = self._left, 0
        while len(left) - start >= 4:
            (size,) = _HEAD.unpack_from(left, start)
            end = start + 4 + size
            if len(left) < end:
                break
            yield _decode(left[start + 4 : end])
            start = end
        del left[:start]

    def close(self) -> None:
        """Let go of this end; the other one is told."""
        self.socket.close()

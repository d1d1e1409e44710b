"""The one place that imports grpc and protobuf."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex import errors

if TYPE_CHECKING:
    import grpc
    import grpc.aio

    from dspex.rpc._generated import dspex_pb2 as pb
else:
    try:
        import grpc
        import grpc.aio

        from dspex.rpc._generated import dspex_pb2 as pb
    except ImportError as error:
        raise errors.missing_extra("gRPC stores and servers", "grpc") from error

__all__ = ["SERVICE", "DecodeError", "grpc", "pb"]

from google.protobuf.message import DecodeError

SERVICE = "dspex.v1.Sessions"

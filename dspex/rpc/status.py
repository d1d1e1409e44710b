"""Errors of dspex and statuses of gRPC: one table for both ends."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from dspex import errors, wire
from dspex.rpc.extra import grpc

__all__ = ["FINAL", "STATUS", "TRAILER", "from_call", "refused", "status_of", "unpacked"]

TRAILER = "dspex-error-bin"
"""The trailing metadata in which a unary call carries its error."""

_Code = grpc.StatusCode

STATUS: Mapping[str, grpc.StatusCode] = MappingProxyType(
    {
        "CLAIMED": _Code.FAILED_PRECONDITION,
        "DEADLINE_EXCEEDED": _Code.DEADLINE_EXCEEDED,
        "DURABILITY_UNKNOWN": _Code.DATA_LOSS,
        "FORK_UNSAFE": _Code.FAILED_PRECONDITION,
        "INVALID_ASSIGNMENT": _Code.FAILED_PRECONDITION,
        "INVALID_CALL": _Code.INVALID_ARGUMENT,
        "INVALID_DECLARATION": _Code.INVALID_ARGUMENT,
        "INVALID_NAME": _Code.INVALID_ARGUMENT,
        "INVALID_VALUE": _Code.INVALID_ARGUMENT,
        "LIMIT_EXCEEDED": _Code.RESOURCE_EXHAUSTED,
        "METRIC_FAILED": _Code.FAILED_PRECONDITION,
        "MISSING_EXTRA": _Code.FAILED_PRECONDITION,
        "NO_LANGUAGE_MODEL": _Code.FAILED_PRECONDITION,
        "PERMISSION_DENIED": _Code.PERMISSION_DENIED,
        "POOL_CLOSED": _Code.UNAVAILABLE,
        "POOL_SATURATED": _Code.RESOURCE_EXHAUSTED,
        "PROGRAM_ERROR": _Code.ABORTED,
        "RULE_BROKEN": _Code.FAILED_PRECONDITION,
        "SESSION_CLOSED": _Code.FAILED_PRECONDITION,
        "SESSION_EXISTS": _Code.ALREADY_EXISTS,
        "SESSION_MOVED": _Code.FAILED_PRECONDITION,
        "SESSION_MOVING": _Code.UNAVAILABLE,
        "STALE_READ": _Code.FAILED_PRECONDITION,
        "STORE_UNAVAILABLE": _Code.UNAVAILABLE,
        "UNKNOWN_MODULE": _Code.NOT_FOUND,
        "UNKNOWN_PROGRAM": _Code.NOT_FOUND,
        "UNKNOWN_REVISION": _Code.OUT_OF_RANGE,
        "UNKNOWN_SESSION": _Code.NOT_FOUND,
        "UNKNOWN_TOOL": _Code.NOT_FOUND,
        "UNKNOWN_VARIABLE": _Code.NOT_FOUND,
        "VARIABLE_CONFLICT": _Code.FAILED_PRECONDITION,
        "VERSION_CONFLICT": _Code.ABORTED,
        "WORKER_LOST": _Code.ABORTED,
        "WOULD_BLOCK": _Code.FAILED_PRECONDITION,
    }
)
"""The status of each error, by its code."""

FINAL = frozenset(
    {_Code.UNAUTHENTICATED, _Code.PERMISSION_DENIED, _Code.UNIMPLEMENTED, _Code.INVALID_ARGUMENT}
)
"""Statuses of a Link that another attempt would only get again."""

_BY_STATUS: Mapping[grpc.StatusCode, type[errors.DspexError]] = MappingProxyType(
    {
        _Code.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
        _Code.INVALID_ARGUMENT: errors.InvalidValue,
        _Code.NOT_FOUND: errors.UnknownSession,
        _Code.PERMISSION_DENIED: errors.PermissionDenied,
        _Code.RESOURCE_EXHAUSTED: errors.LimitExceeded,
        _Code.UNAUTHENTICATED: errors.PermissionDenied,
    }
)
"""What an error is that was not made by dspex but by something between the two ends."""


def status_of(error: errors.DspexError) -> grpc.StatusCode:
    """The status under which *error* travels; one of those that say that the caller can do something."""
    if error.facts.get("authenticated") is False:
        return _Code.UNAUTHENTICATED
    return STATUS.get(error.code, _Code.FAILED_PRECONDITION)


def refused(error: Exception) -> errors.DspexError:
    """*error* as a caller may see it: one of ours as it is, any other only as that something failed."""
    if isinstance(error, errors.DspexError):
        return error
    import logging

    logging.getLogger("dspex.rpc").error("a call failed for no reason that dspex knows", exc_info=error)
    return errors.StoreUnavailable("the server failed to answer this call; its log has the reason.")


def unpacked(data: bytes) -> errors.DspexError:
    """The error that *data* stands for; itself again, of its class and with its facts."""
    try:
        return wire.unpack_error(data)
    except Exception:
        return errors.StoreUnavailable("the server refused, in words that cannot be read.")


def from_call(error: grpc.RpcError, address: str) -> errors.DspexError:
    """The refusal behind a failed call to the server at *address*."""
    trailers: Any = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    for key, data in trailers or ():
        if key == TRAILER:
            return unpacked(data)
    code = error.code() if hasattr(error, "code") else _Code.UNAVAILABLE
    details = (error.details() if hasattr(error, "details") else None) or ""
    made = _BY_STATUS.get(code, errors.StoreUnavailable)
    words = errors.shown(details)[1:-1]
    return made(f"the server at {address} answered {code.name}: {words}", address=address, status=code.name)

"""
Sessions between processes: the gRPC service, the store that speaks to it, and the rooms that both share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dspex.rpc.client import RemoteStore
    from dspex.rpc.server import Server, serve

__all__ = ["RemoteStore", "Server", "serve"]

_ROOMS = {"RemoteStore": "client", "Server": "server", "serve": "server"}


def __getattr__(name: str) -> Any:
    # A client does not load the server, nor the other way round.
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_ROOMS[name]}"), name)

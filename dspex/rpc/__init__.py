"""
Sessions between processes: the gRPC service, the store that speaks to it, and the rooms that both share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dspex.later import later

if TYPE_CHECKING:
    from dspex.rpc.client import RemoteStore
    from dspex.rpc.server import Server, serve

__all__ = ["RemoteStore", "Server", "serve"]

# A client does not load the server, nor the other way round.
__getattr__ = later(__name__, {"RemoteStore": "client", "Server": "server", "serve": "server"})

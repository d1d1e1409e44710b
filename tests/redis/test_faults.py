"""Everything that can happen to a server and to the way there, again and again, while all go on setting."""

from __future__ import annotations

import random
import threading
import time
from itertools import count

import pytest
from proxy import Proxy
from soak import LIMIT, often

from dspex import Integer, Session, errors

SECONDS = often(8, 600)
NAMES = [f"v{number}" for number in range(20)]


class Trouble:
    """What happens, one thing after the other; each is over when it returns."""

    def __init__(self, server, proxy):
        self.server, self.proxy = server, proxy
        self.pause = threading.Event().wait
        self.all = [proxy.reset, self.half_open, self.slow, self.mute, self.freeze, self.deaf, self.restart]

    def half_open(self):
        self.proxy.half_open()
        self.pause(0.4)

    def slow(self):
        self.proxy.delay = 0.02
        self.pause(0.4)

    def mute(self):
        self.proxy.drop_down = True
        self.pause(0.1)

    def freeze(self):
        self.server.freeze()
        self.pause(0.3)
        self.server.thaw()

    def deaf(self):
        self.server.call("CLIENT", "KILL", "TYPE", "pubsub")

    def restart(self):
        self.server.kill()
        self.server.start()

    def over(self):
        self.proxy.delay = 0.0
        self.proxy.drop_down = False
        self.proxy.heal()


class Writer(threading.Thread):
    """Sets what it likes until it is stopped, and counts what was acknowledged."""

    def __init__(self, session, seed):
        super().__init__(daemon=True)
        self.session, self.chance = session, random.Random(seed)
        self.stop, self.acknowledged, self.refused = threading.Event(), 0, 0

    def run(self):
        for number in count():
            if self.stop.is_set():
                return
            name = self.chance.choice(NAMES)
            try:
                if number % 7 == 0:
                    self.session.update(dict.fromkeys(self.chance.sample(NAMES, 3), number))
                else:
                    self.session.set(name, number)
                self.acknowledged += 1
            except errors.DspexError:
                self.refused += 1
            self.stop.wait(0.002)


def copied(session):
    """What the copy of this process has, without asking anybody."""
    return {
        name: (one.value, one.version, one.rev, one.epoch, one.source, one.time)
        for name, one in session.ledger.live.items()
        if one.version
    }


@pytest.mark.timeout(LIMIT)
def test_after_any_trouble_all_copies_are_what_the_server_has(own, stores, tmp_path, eventually, capsys):
    server = own("appendonly yes", "appendfsync always")  # so that nothing is lost, and no history is cut
    happened = total = 0
    with Proxy(server.path, str(tmp_path / "proxy")) as proxy:
        url = f"redis+unix://{proxy.listen}?deadline=1"
        sessions = [Session("faults", store=stores(url)) for _ in range(4)]
        for name in NAMES:
            sessions[0].register(name, Integer(), initial=0)
        revs = [[] for _ in sessions]
        for heard, session in zip(revs, sessions, strict=True):
            session.snapshot()
            session.watch("v0", lambda change, heard=heard: heard.append(change.version), mode="all")
        epoch, trouble, chance = sessions[0].revision.epoch, Trouble(server, proxy), random.Random(7)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            writers = [Writer(session, chance.random()) for session in sessions[:2]]
            for writer in writers:
                writer.start()
            for happening in chance.sample(trouble.all, 4):
                happening()
                trouble.over()
                happened += 1
                trouble.pause(0.2)
            for writer in writers:
                writer.stop.set()
                writer.join(30)
                total += writer.acknowledged
            with Session("faults", store=stores(server.url)) as beneath:
                at, there = beneath.revision, copied(beneath)
            for session, heard in zip(sessions, revs, strict=True):
                eventually(lambda one=session, at=at: one.revision == at, "the copy is there")
                assert copied(session) == there
                last = there["v0"][1] if "v0" in there else 0
                eventually(lambda heard=heard, last=last: len(heard) >= last, "the watcher was told all")
                assert list(range(1, last + 1)) == heard
        assert sessions[0].revision.epoch == epoch
        assert sum(sessions[0].record(name).version for name in NAMES) >= total
        for session in sessions:
            session.close()
    with capsys.disabled():
        print(f"\n{happened} troubles in {SECONDS} s, {total} acknowledged commits, all copies equal")  # noqa: T201

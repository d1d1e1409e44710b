"""
Kills processes that commit, and looks at what they leave; a process of its own, as it forks.

    python sqlite_killed.py DIRECTORY KILLS SEED

Each child commits in three threads, by `update` pairs that are always equal and by `set` a single name, and
says so in a pipe when that has returned.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sqlite3
import sys
import threading
from pathlib import Path

from dspex import Integer, Session

NAMES = (("a0", "b0"), ("a1", "b1"), ("c",))
"""What each thread sets."""


def commit_for_ever(url: str, said: int) -> None:
    session = Session("prod", store=url)
    for names in NAMES:
        for name in names:
            session.register(name, Integer(), initial=0)

    def work(thread: int) -> None:
        names = NAMES[thread]
        value = session.get(names[0])
        while True:
            value += 1
            if len(names) == 1:
                rev = session.set(names[0], value).rev
            else:
                rev = session.update(dict.fromkeys(names, value)).rev
            os.write(said, b"%d %d %d\n" % (thread, value, rev))

    os.write(said, b"opened\n")
    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(len(NAMES))]
    for one in threads:
        one.start()
    for one in threads:
        one.join()


def killed(url: str, chance: random.Random) -> list[tuple[int, ...]]:
    """What a child said before it was killed, at a random moment."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            commit_for_ever(url, write)
        finally:
            os._exit(1)
    os.close(write)
    heard, wanted = b"", chance.choice((0, 1, 2, 5, 10, 30, 60))
    while heard.count(b"\n") < wanted:
        more = os.read(read, 65536)
        if not more:
            raise SystemExit(f"the child ended by itself: {heard!r}")
        heard += more
    select.select([], [], [], chance.random() * 0.004)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while more := os.read(read, 65536):
        heard += more
    os.close(read)
    whole = heard[: heard.rfind(b"\n") + 1].decode().splitlines()
    return [tuple(map(int, line.split())) for line in whole if line != "opened"]


def main(directory: str, kills: int, seed: int) -> None:
    path = Path(directory, "agent.db")
    url, chance = f"sqlite:///{path}", random.Random(seed)
    acked = dict.fromkeys(range(len(NAMES)), 0)
    highest, epoch, acks = 0, "", 0
    with Session("prod", store=url):
        pass
    for number in range(kills):
        for thread, value, rev in killed(url, chance):
            acked[thread] = max(acked[thread], value)
            highest = max(highest, rev)
            acks += 1
        # With another program first: what it finds does not depend on how dspex opens a file.
        beneath = sqlite3.connect(path)
        (check,) = beneath.execute("PRAGMA integrity_check").fetchone()
        beneath.close()
        assert check == "ok", (number, check)
        with Session("prod", store=url) as session:
            assert epoch in ("", session.revision.epoch), (number, "another epoch")
            assert session.revision.rev >= highest, (number, session.revision.rev, highest)
            epoch, highest = session.revision.epoch, session.revision.rev
            for thread, value in acked.items():
                found = [session.get(name, 0) for name in NAMES[thread]]
                assert found[0] >= value, (number, "lost", thread, found, value)
                assert len(set(found)) == 1, (number, "torn", thread, found)
                acked[thread] = found[0]
            for change in session.history():
                assert change.new == change.old + 1, (number, change)
    sys.stdout.write(f"{kills} {acks} {highest}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

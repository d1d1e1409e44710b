"""
Lets two processes open one store at the same moment, many times; a process of its own, as it forks.

    python sqlite_raced.py DIRECTORY RACES
"""

from __future__ import annotations

import os
import re
import sys
import time
from pathlib import Path

from dspex import StoreUnavailable
from dspex.stores.sqlite import SqliteStore


def clock() -> float:
    """Seconds, less those in which this process wanted a processor and another one had it."""
    schedule = Path("/proc/self/schedstat")
    waited = int(schedule.read_text().split()[1]) / 1e9 if schedule.exists() else 0.0
    return time.monotonic() - waited


def contender(url: str, start: int, done: int, said: int) -> None:
    os.read(start, 1)
    begin = clock()
    try:
        store = SqliteStore(url)
    except StoreUnavailable as error:
        owner = re.search(r"in use by process (\d+)", str(error))
        os.write(said, b"lost %d %s\n" % (os.getpid(), owner[1].encode() if owner else b"?"))
        assert clock() - begin < 1
    else:
        os.write(said, b"won %d\n" % os.getpid())
        # Until all know who has won.
        os.read(done, 1)
        store.close()


def race(url: str) -> list[list[str]]:
    start, done, said = os.pipe(), os.pipe(), os.pipe()
    children = []
    for _ in range(2):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for end in (start[1], done[1], said[0]):
                    os.close(end)
                contender(url, start[0], done[0], said[1])
                code = 0
            finally:
                os._exit(code)
        children.append(child)
    os.close(said[1])
    os.close(start[1])  # both read its end at the same moment
    heard = b""
    while heard.count(b"\n") < 2:
        more = os.read(said[0], 1000)
        assert more, heard
        heard += more
    os.close(done[1])
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
    for end in (start[0], done[0], said[0]):
        os.close(end)
    return sorted(line.split() for line in heard.decode().splitlines())


def main(directory: str, races: int) -> None:
    for number in range(races):
        # Every other time the file is not there yet.
        url = f"sqlite:///{Path(directory)}/agent{number // 2}.db?durability=fast"
        lost, won = race(url)
        assert (lost[0], won[0]) == ("lost", "won"), (number, lost, won)
        assert lost[2] == won[1], (number, lost, won)
    sys.stdout.write(f"{races}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

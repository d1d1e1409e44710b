"""
How fast a SQLite store is, beside SQLite itself.

    python benchmarks/sqlite.py [--quick] [--json FILE] [--check]

The limit is `sqlite3` by hand, on the same disk, with the same settings and the same values: one commit is
the upsert of a value, the insert of a line of history and the update of a revision. Optuna's row needs
`pip install optuna`; without it, it is left out.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
from timing import AGAIN, Goal, Row, Table, finish, machine, measured

from dspex import Float, Session
from dspex.commits import Commit, Declaration

FULL, FAST = 30, 2_000
"""Commits of one round, by durability: as many as a few turns of the write-ahead log take."""

THREADS = 8
VARIABLES = 100

RAW = "sqlite3 by hand: 3 statements, 1 commit"
SET = "dspex session.set"
OPTUNA = "Optuna RDBStorage: set_trial_user_attr"
ONE, TOGETHER = "dspex, 1 thread", f"dspex, {THREADS} threads at the same time"
RAW_READ = "sqlite3 by hand: connect, select names and values, decode"
COLUMNS = "name, version, rev, time, source, value"
RAW_RECORDS = "the same with version, revision, time and author"
RAW_FILE = "the same from the file of dspex, which has eight tables"
READ = "dspex: open the session, get each"

TABLES = """
CREATE TABLE revisions (session INTEGER PRIMARY KEY, rev INTEGER);
CREATE TABLE records (session INTEGER, name TEXT, version INTEGER, rev INTEGER, time REAL, source TEXT,
    value BLOB, PRIMARY KEY (session, name)) WITHOUT ROWID;
CREATE TABLE log (session INTEGER, rev INTEGER, name TEXT, version INTEGER, time REAL, source TEXT,
    value BLOB, PRIMARY KEY (session, rev, name)) WITHOUT ROWID;
INSERT INTO revisions VALUES (1, 0);
"""
REVISE = "UPDATE revisions SET rev = ? WHERE session = 1"
RECORD = """
INSERT INTO records VALUES (1, ?1, ?2, ?3, ?4, ?5, ?6)
ON CONFLICT DO UPDATE SET version = ?2, rev = ?3, time = ?4, source = ?5, value = ?6
"""
LOG = "INSERT INTO log VALUES (1, ?, ?, ?, ?, ?, ?)"


def connect(path: Path, durability: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {'FULL' if durability == 'full' else 'NORMAL'}")
    return connection


def timed(calls: int, call: Callable[[], object]) -> Callable[[], float]:
    """Seconds of one of so many calls."""

    def run() -> float:
        begin = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - begin) / calls

    return run


# ---- one commit --------------------------------------------------------------------------------------


def raw_set(path: Path, durability: str) -> Callable[[], None]:
    connection = connect(path, durability)
    connection.executescript(TABLES)
    execute, encode = connection.cursor().execute, msgspec.msgpack.Encoder().encode
    revs, values = iter(range(1, 10**9)), cycle((0.1, 0.2))

    def commit() -> None:
        rev, value, now = next(revs), encode(next(values)), time.time()
        execute("BEGIN IMMEDIATE")
        execute(REVISE, (rev,))
        execute(RECORD, ("temperature", rev, rev, now, "bench", value))
        execute(LOG, (rev, "temperature", rev, now, "bench", value))
        execute("COMMIT")

    return commit


def opened(path: Path, durability: str) -> Session:
    session = Session("bench", store=f"sqlite:///{path}?durability={durability}", source="bench")
    session.register("temperature", Float(min=0.0, max=1.5), initial=0.7)
    return session


def dspex_set(path: Path, durability: str) -> Callable[[], None]:
    session, values = opened(path, durability), cycle((0.1, 0.2))

    def commit() -> None:
        session.set("temperature", next(values))

    commit()
    if session.get("temperature") != 0.1:
        raise SystemExit("dspex did not set")
    return commit


def optuna_set(path: Path) -> Callable[[], None]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage: Any = optuna.storages.RDBStorage(f"sqlite:///{path}")
    study = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE])
    trial, values = storage.create_new_trial(study), cycle((0.1, 0.2))

    def commit() -> None:
        storage.set_trial_user_attr(trial, "temperature", next(values))

    return commit


def sets(folder: Path, durability: str, calls: int, rounds: int) -> Table:
    rows = [
        Row(RAW, timed(calls, raw_set(folder / f"raw-{durability}.db", durability))),
        Row(AGAIN, timed(calls, raw_set(folder / f"again-{durability}.db", durability))),
        Row(SET, timed(calls, dspex_set(folder / f"dspex-{durability}.db", durability))),
    ]
    goals = [Goal(SET, 1.10 if durability == "full" else 1.25, RAW)]
    if durability == "full" and find_spec("optuna") is not None:
        rows.append(Row(OPTUNA, timed(max(1, calls // 10), optuna_set(folder / "optuna.db"))))
        goals.append(Goal(SET, 0.10, OPTUNA))
    return measured(
        f"sqlite-{durability}", f"SQLite: one set, durability={durability}", rows, goals, rounds=rounds
    )


# ---- many threads ------------------------------------------------------------------------------------


def committing(session: Session, threads: int, calls: int) -> Callable[[], float]:
    """Seconds of one of so many commits, made by so many threads."""

    def run() -> float:
        barrier = threading.Barrier(threads + 1)

        def work() -> None:
            barrier.wait()
            for _ in range(calls // threads):
                session.set("temperature", 0.1)
            barrier.wait()

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        barrier.wait()
        begin = time.perf_counter()
        barrier.wait()
        taken = time.perf_counter() - begin
        for worker in workers:
            worker.join()
        return taken / calls

    return run


def threads(folder: Path, durability: str, calls: int, rounds: int) -> Table:
    session = opened(folder / f"threads-{durability}.db", durability)
    rows = [
        Row(ONE, committing(session, 1, calls)),
        Row(AGAIN, committing(session, 1, calls)),
        Row(TOGETHER, committing(session, THREADS, calls)),
    ]
    goals = [Goal(TOGETHER, 0.75, ONE)] if durability == "full" else []
    return measured(
        f"sqlite-threads-{durability}",
        f"SQLite: {THREADS} threads commit at the same time, durability={durability}",
        rows,
        goals,
        rounds=rounds,
    )


# ---- opening -----------------------------------------------------------------------------------------


def raw_read(path: Path, columns: str = "name, value") -> Callable[[], float]:
    connection = connect(path, "full")
    connection.executescript(TABLES)
    for index in range(VARIABLES):
        value = msgspec.msgpack.encode(index / VARIABLES)
        connection.execute(RECORD, (f"v{index}", 1, 1, time.time(), "bench", value))
    connection.close()
    return raw_select(path, columns)


def raw_select(path: Path, columns: str) -> Callable[[], float]:
    decode = msgspec.msgpack.Decoder().decode

    def read() -> dict[str, Any]:
        connection = connect(path, "full")
        rows = connection.execute(f"SELECT {columns} FROM records WHERE session = 1").fetchall()
        values = {row[0]: (decode(row[-1]), row) for row in rows}
        if len(values) != VARIABLES:
            raise SystemExit("raw did not read")
        connection.close()
        return values

    return timed(20, read)


def dspex_read(path: Path) -> Callable[[], float]:
    url = f"sqlite:///{path}"
    names = [f"v{index}" for index in range(VARIABLES)]
    with Session("bench", store=url) as session:
        kind = Float(min=0.0, max=1.5)
        session.ledger.commit(Commit(declare=tuple(Declaration(name, kind, 0.0) for name in names)))
        session.update({name: index / VARIABLES for index, name in enumerate(names)})

    def read() -> dict[str, Any]:
        with Session("bench", store=url) as session:
            values = {name: session.get(name) for name in names}
        if values["v50"] != 0.5:
            raise SystemExit("dspex did not read")
        return values

    return timed(20, read)


def reading(folder: Path, rounds: int) -> Table:
    rows = [
        Row(RAW_READ, raw_read(folder / "raw-read.db")),
        Row(AGAIN, raw_read(folder / "raw-again.db")),
        Row(RAW_RECORDS, raw_read(folder / "raw-records.db", COLUMNS)),
        Row(READ, dspex_read(folder / "dspex-read.db")),
        Row(RAW_FILE, raw_select(folder / "dspex-read.db", COLUMNS)),
    ]
    return measured(
        "sqlite-open",
        f"SQLite: open and read {VARIABLES} variables",
        rows,
        [Goal(READ, 1.3, RAW_READ)],
        rounds=rounds,
    )


def tables(folder: Path, rounds: int) -> Iterator[Table]:
    yield sets(folder, "full", FULL, rounds)
    yield sets(folder, "fast", FAST, rounds)
    yield threads(folder, "full", FULL * 4, rounds // 3)
    yield threads(folder, "fast", FAST, rounds // 3)
    yield reading(folder, rounds)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="write every round here")
    parser.add_argument("--docs", type=Path, help="put the tables into that page")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    parser.add_argument("--folder", type=Path, help="where the files are made: the disk that is measured")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder))
    about = machine("msgspec") | {"SQLite": sqlite3.sqlite_version, "process": str(os.getpid())}
    for key, value in about.items():
        print(f"{key}: {value}")
    print()
    try:
        found = list(tables(folder, 7 if options.quick else 61))
        return finish(about, found, json_file=options.json, docs=options.docs, check=options.check)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    raise SystemExit(main())

"""
How fast dspex is within one process, beside plain Python and its peers.

    python benchmarks/inprocess.py [--quick] [--check] [--json FILE] [--docs FILE]

Prints its tables as Markdown, each with the goals that dspex has there.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import rivals
from fresh import CORE, MEMORY_GOALS, import_rows, memory_rows
from memory import NAMES, ten_variables
from rivals import HAND_MADE, RIVALS, Agent, Settable
from timing import AGAIN, Goal, Row, Table, finish, machine, measured, size, statement

from dspex import Program, Session, defvariable, telemetry

PACKAGES = ("attrs", "blinker", "cattrs", "msgspec", "param", "psygnal", "pydantic", "traitlets")
PUSHES = 10_000


# ---- read --------------------------------------------------------------------------------------------


class Plain:
    """What is to be reached."""

    def __init__(self) -> None:
        self.temperature = 0.7


def used_up() -> Program:
    """A program with which everything was done that makes the reads of an object with a `__dict__` slow."""
    session = Session()
    program = Agent.bind(session)
    for number in range(PUSHES):
        session.set("temperature", number / PUSHES)
    copy.copy(program)
    vars(program)
    dir(program)
    program.pinned()
    return program


def spoilt() -> Plain:
    """A plain object with which half of that was done."""
    plain = Plain()
    copy.copy(plain)
    vars(plain)
    return plain


PLAIN_READ = "plain attribute"


def reading(rounds: int) -> Table:
    session = Session()
    live, used = Agent.bind(session), used_up()
    pinned, pin_of_used = live.pinned(), used.pinned()
    targets: dict[str, Any] = {
        PLAIN_READ: Plain(),
        AGAIN: Plain(),
        "dspex, live": live,
        "dspex, pinned": pinned,
        f"dspex, live, after {PUSHES:,} pushes, copy.copy, vars, dir and a pin": used,
        "dspex, that pin": pin_of_used,
        "plain attribute, after copy.copy and vars": spoilt(),
        "pydantic": rivals.Model(),
        "psygnal EventedModel": rivals.Evented(),
        "traitlets": rivals.Traitlets(),
        "param": rivals.Param(),
    }
    for label, target in targets.items():
        if not isinstance(target.temperature, float):
            raise SystemExit(f"{label} reads {target.temperature!r}")
    rows = [statement(label, "target.temperature", target=target) for label, target in targets.items()]
    goals = [Goal(label, 1.05, PLAIN_READ) for label in targets if label.startswith("dspex")]
    return measured("read", "Read: `program.temperature`", rows, goals, rounds=rounds)


# ---- get ---------------------------------------------------------------------------------------------

Ten = ten_variables()


class HandMade:
    """A method, a dict, a record's value."""

    def __init__(self, records: dict[str, Any]) -> None:
        self.records = records

    def get(self, name: str) -> Any:
        return self.records[name].value


def get_by_name(rounds: int) -> Table:
    new, used = Session(), Session()
    Ten.bind(new)
    Ten.bind(used)
    for value in (0.1, 0.2):
        used.set("v3", value)
    fork, changed = used.fork(), used.fork()
    changed.set("v3", 0.3)
    hand = HandMade({name: used.record(name) for name in NAMES})
    limit = "by hand: a method, a dict, a record's value"
    targets: dict[str, tuple[Any, str, float]] = {
        limit: (hand, "v3", 0.2),
        AGAIN: (hand, "v3", 0.2),
        "dspex, a variable that was set": (used, "v3", 0.2),
        "dspex, one that never was": (used, "v4", 0.7),
        "dspex, a session in which nothing was set": (new, "v3", 0.7),
        "dspex, a fork in which nothing was set": (fork, "v3", 0.2),
        "dspex, a fork, the variable that it set": (changed, "v3", 0.3),
        "dspex, a fork, one that it did not set": (changed, "v4", 0.7),
    }
    for label, (target, name, expected) in targets.items():
        if target.get(name) != expected:
            raise SystemExit(f"{label}: got {target.get(name)}")
    rows = [
        statement(label, f"target.get({name!r})", target=target)
        for label, (target, name, _) in targets.items()
    ]
    # A fork that set something keeps only that, in a dict that is not quite CPython's own: 3 ns for 80 bytes.
    goals = [Goal(label, 1.3, limit, "by hand") for label in targets if label.startswith("dspex")]
    return measured("get", "Get: `session.get(name)`", rows, goals, rounds=rounds)


# ---- set ---------------------------------------------------------------------------------------------

SESSION, TRAITLETS, PARAM, PSYGNAL = (
    next(label for label in RIVALS if label.startswith(name))
    for name in ("dspex session", "traitlets", "param", "psygnal")
)
PYDANTIC = "pydantic validate_assignment, which tells nobody"
LOOP = "plain loop over 1,000 callables"

SET_GOALS = {
    0: [Goal(SESSION, 0.95, TRAITLETS, "traitlets")],
    1: [
        Goal(SESSION, 0.80, TRAITLETS, "traitlets"),
        Goal(SESSION, 0.27, PSYGNAL, "psygnal"),
        Goal(SESSION, 0.08, PARAM, "param"),
    ],
    1_000: [Goal(SESSION, 1.15, LOOP)],
}


def set_rows(watchers: int) -> Iterator[Row]:
    made: dict[str, Settable] = {}
    if watchers == 1_000:
        loop = "for watcher in watchers: watcher(None)"
        yield statement(LOOP, loop, watchers=tuple(rivals.distinct(watchers)))
        yield statement(AGAIN, loop, watchers=tuple(rivals.distinct(watchers)))
    for label, make in RIVALS.items():
        made[label] = rivals.checked(label, make, watchers)
        if label == HAND_MADE and watchers < 1_000:
            made[AGAIN] = rivals.checked(label, make, watchers)
    if watchers == 0:
        made[PYDANTIC] = rivals.checked(PYDANTIC, lambda _: Settable.attribute(rivals.Model()), 0)
    for label, one in made.items():
        yield statement(label, one.code, calls=2, target=one.target)


def setting(watchers: int, rounds: int) -> Table:
    title = {0: "no watcher", 1: "1 watcher", 1_000: "1,000 watchers"}[watchers]
    return measured(
        f"set-{watchers}",
        f"Set: `session.set(name, value)`, a bounded float, one bound program, {title}",
        list(set_rows(watchers)),
        SET_GOALS[watchers],
        rounds=rounds,
    )


# ---- bind --------------------------------------------------------------------------------------------


class PlainTen:
    """Ten attributes."""

    def __init__(self) -> None:
        for name in NAMES:
            setattr(self, name, 0.7)


def copied(source: PlainTen) -> PlainTen:
    """A copy made attribute by attribute."""
    made = object.__new__(PlainTen)
    values = source.__dict__
    store = object.__setattr__
    for name in NAMES:
        store(made, name, values[name])
    return made


def binding(rounds: int) -> Table:
    limit = "copying 10 attributes one by one"
    session, source = Session(), PlainTen()
    program = Ten.bind(session)
    session.set("v3", 0.2)
    snapshot = session.snapshot()
    rows = [
        statement(limit, "copied(source)", copied=copied, source=source),
        statement(AGAIN, "copied(source)", copied=copied, source=source),
        statement("copy.copy of 10 attributes", "copy(source)", copy=copy.copy, source=PlainTen()),
        statement("dspex, bound: Ten.bind(session)", "Ten.bind(session)", Ten=Ten, session=session),
        statement("dspex, pinned: program.pinned()", "program.pinned()", program=program),
        statement(
            "dspex, pinned: program.pinned(snapshot)",
            "program.pinned(snapshot)",
            program=program,
            snapshot=snapshot,
        ),
    ]
    goals = [Goal(row.label, 2.0, limit) for row in rows if row.label.startswith("dspex")]
    return measured("bind", "A bound program of 10 variables, made or pinned", rows, goals, rounds=rounds)


# ---- telemetry ---------------------------------------------------------------------------------------


def surrounded(program: Program) -> None:
    """What a run does with telemetry, and nothing else."""
    with telemetry.running(program):
        pass


class Idle(Program):
    """Does nothing."""

    temperature = defvariable(float, initial=0.7)

    def forward(self) -> None:
        pass


def untold(rounds: int) -> Table:
    session = Session()
    program = Idle.bind(session)
    set_it, run_it = "session.set('temperature', 0.2)", "Idle.run(session=session)"
    asked, around = "what a set asks: is telemetry active", "what a run does: a context that is empty"
    rows = [
        statement(set_it, set_it, session=session),
        statement(AGAIN, set_it, session=session),
        statement(asked, "telemetry.active is None", telemetry=telemetry),
        statement(run_it, run_it, Idle=Idle, session=session),
        statement(around, "surrounded(program)", surrounded=surrounded, program=program),
    ]
    goals = [Goal(asked, 0.02, set_it), Goal(around, 0.1, run_it)]
    return measured("telemetry", "What telemetry costs where it is not enabled", rows, goals, rounds=rounds)


# ---- fresh processes ---------------------------------------------------------------------------------


def weighing(rounds: int) -> Table:
    return measured(
        "memory",
        "Memory: resident bytes of each of many, in a fresh process",
        list(memory_rows()),
        MEMORY_GOALS,
        rounds=rounds,
        unit=size,
    )


def importing(rounds: int) -> Table:
    with tempfile.TemporaryDirectory() as cache:
        return measured(
            "import",
            "Import: the processor time of a whole process, Python's own start included",
            list(import_rows(cache)),
            [Goal("dspex", 1.25, CORE, "importing what it requires")],
            rounds=rounds,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds: seconds instead of minutes")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a goal is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the tables into that page")
    options = parser.parse_args()
    about = machine(*PACKAGES)
    for key, value in about.items():
        print(f"- {key}: {value}")
    print()
    rounds, starts = (5, 3) if options.quick else (31, 15)
    tables = [
        reading(rounds),
        get_by_name(rounds),
        *(setting(watchers, rounds) for watchers in SET_GOALS),
        binding(rounds),
        untold(rounds),
        weighing(1 if options.quick else 3),
        importing(starts),
    ]
    return finish(about, tables, json_file=options.json, docs=options.docs, check=options.check)


if __name__ == "__main__":
    raise SystemExit(main())

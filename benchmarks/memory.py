"""
Makes many of something in this process, which is fresh, and prints the resident bytes of each.

    python benchmarks/memory.py LABEL

It imports nothing but what it measures: what an import leaves free would be filled first.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["MANY", "MEMORY", "NAMES", "ten_variables"]

MANY = 50_000
"""How many are made, unless they take more than `ENOUGH`."""

ENOUGH = 200e6
"""Bytes."""

NAMES = tuple(f"v{index}" for index in range(10))


def ten_variables() -> Any:
    """A program class with that many."""
    from dspex import Float, Program, defvariable

    body = {name: defvariable(Float(min=0.0, max=1.5), initial=0.7) for name in NAMES}
    return type(Program)("Ten", (Program,), body)


def of_dspex(how: str) -> Callable[[], Any]:
    """What makes one of dspex."""
    from dspex import Session

    program = ten_variables()
    parent = Session()
    live = program.bind(parent)
    snapshot = parent.snapshot()

    def fork_one() -> Any:
        fork = parent.fork()
        fork.set("v3", 0.25)
        return fork

    def fork_again() -> Any:
        fork = fork_one()
        fork.set("v3", 0.5)
        return fork

    def fork_bound() -> Any:
        return program.bind(fork_one())

    def session_one() -> Any:
        bound = program(Session())
        bound.session.set("v3", 0.25)
        return bound

    return {
        "session": Session,
        "fork": parent.fork,
        "fork, 1 own": fork_one,
        "fork, set twice": fork_again,
        "fork, bound": fork_bound,
        "session, bound before": lambda: program(Session()).session,
        "session, bound before, 1 own": lambda: session_one().session,
        "session, bound, 1 own": session_one,
        "program": lambda: live.pinned(snapshot),
    }[how]


def of_peer(how: str) -> Callable[[], Any]:
    """What makes one of its peers."""
    if how == "plain":

        class Plain:
            def __init__(self) -> None:
                self.v0 = self.v1 = self.v2 = self.v3 = self.v4 = 0.7
                self.v5 = self.v6 = self.v7 = self.v8 = self.v9 = 0.7

        return Plain
    if how == "traitlets":
        import traitlets

        traits = {name: traitlets.Float(0.7, min=0.0, max=1.5) for name in NAMES}
        return type("Ten", (traitlets.HasTraits,), traits)
    if how == "param":
        import param

        numbers = {name: param.Number(0.7, bounds=(0.0, 1.5)) for name in NAMES}
        return type("Ten", (param.Parameterized,), numbers)
    import pydantic

    base = pydantic.BaseModel
    if how == "psygnal":
        import psygnal

        base = psygnal.EventedModel
    fields: Any = {name: (float, pydantic.Field(0.7, ge=0.0, le=1.5)) for name in NAMES}
    return pydantic.create_model("Ten", __base__=base, **fields)


MEMORY: dict[str, tuple[Callable[[str], Callable[[], Any]], str]] = {
    "object with 10 plain attributes": (of_peer, "plain"),
    "dspex session, no value of its own": (of_dspex, "session"),
    "dspex fork, no value of its own": (of_dspex, "fork"),
    "dspex fork, 1 of 10 its own": (of_dspex, "fork, 1 own"),
    "dspex fork, 1 of 10 its own, set twice": (of_dspex, "fork, set twice"),
    "dspex fork, 1 of 10 its own, and a program that is bound to it": (of_dspex, "fork, bound"),
    "dspex session in which a program was bound": (of_dspex, "session, bound before"),
    "dspex session in which a program was bound, 1 of 10 its own": (of_dspex, "session, bound before, 1 own"),
    "dspex session, 1 of 10 its own, and a program that is bound to it": (of_dspex, "session, bound, 1 own"),
    "dspex program of 10 on its own": (of_dspex, "program"),
    "traitlets": (of_peer, "traitlets"),
    "param": (of_peer, "param"),
    "psygnal EventedModel": (of_peer, "psygnal"),
    "pydantic": (of_peer, "pydantic"),
}


def resident() -> int:
    """The bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main(label: str) -> None:
    find, how = MEMORY[label]
    make = find(how)
    for _ in range(100):
        make()
    kept: list[Any] = [None] * MANY
    gc.collect()
    gc.freeze()
    before = resident()
    for index in range(MANY):
        kept[index] = make()
        if index % 1_000 == 999 and resident() - before > ENOUGH:
            break
    print((resident() - before) / (index + 1))


if __name__ == "__main__":
    main(sys.argv[1])

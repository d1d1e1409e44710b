"""
Rows of a table, timed together: what every benchmark here has in common.

All rows of a table run once a round, each round in another order, which a seed fixes. A ratio of two rows
is the median over the rounds of one row's median in a round divided by the other's median in the same
round, so that what a neighbour does to the machine meets both. Absolute times are shown for orientation;
compare only ratios.
"""

from __future__ import annotations

import gc
import json
import os
import platform
import random
import sys
import sysconfig
import time
import timeit
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

import attrs

__all__ = [
    "AGAIN",
    "NOISE",
    "Goal",
    "Row",
    "Table",
    "finish",
    "in_rounds",
    "machine",
    "measured",
    "size",
    "statement",
]

AGAIN = "the same once more (A/A: the noise of this table)"
NOISE = 0.03
"""By how much of itself a goal may be missed before `--check` fails: what the A/A rows may show."""

MET, CLOSE, MISSED = "met", "within the noise", "missed"

SAMPLE = 0.002
"""Seconds."""

Unit = Callable[[float], str]


def seconds(value: float) -> str:
    """*value* in the unit in which it has one to three digits before the point."""
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e-9:.3g} ns"


def size(value: float) -> str:
    """*value* bytes."""
    return f"{value / 1e6:.2f} MB" if value >= 1e6 else f"{value:,.0f} B"


@attrs.frozen
class Row:
    """One line of a table."""

    label: str
    run: Callable[[], float]
    """Runs it once, and returns what that took."""


@attrs.frozen
class Goal:
    """That one row must take at most so many times what another takes, or at most so much."""

    row: str
    at_most: float
    of: str = ""
    """The other row; without one `at_most` is absolute."""
    called: str = ""
    """How the other row is called in the sentence, when its label is too long for that."""
    times: int = 1
    """How many of the row an absolute goal speaks of."""


@attrs.define
class Table:
    """Rows that were measured together, the first of which is the limit, and what they should reach."""

    key: str
    """Where it stands in the docs."""
    title: str
    samples: Mapping[str, list[float]]
    """Of each row one value a round."""
    goals: tuple[Goal, ...] = ()
    unit: Unit = seconds

    def ratio(self, row: str, of: str) -> float:
        """How many times *of* does *row* take, in the same round."""
        return median(a / b for a, b in zip(self.samples[row], self.samples[of], strict=True))

    def reached(self, goal: Goal) -> float:
        """What is to be compared with `goal.at_most`."""
        return self.ratio(goal.row, goal.of) if goal.of else median(self.samples[goal.row]) * goal.times

    def verdict(self, goal: Goal) -> str:
        """Whether *goal* is met."""
        reached = self.reached(goal)
        if reached <= goal.at_most:
            return MET
        return CLOSE if reached <= goal.at_most * (1 + NOISE) else MISSED

    def missed(self) -> list[str]:
        """A sentence for every goal that is missed by more than the noise."""
        return [
            f"{self.title}: {goal.row}: {self._wanted(goal)}, measured {self._figure(goal)}"
            for goal in self.goals
            if self.verdict(goal) == MISSED
        ]

    def __str__(self) -> str:
        """The table as Markdown, and what should be reached."""
        limit, *_ = self.samples
        lines = ["| row | median | ratio to the first |", "|---|---:|---:|"]
        lines += [
            f"| {row} | {self.unit(median(values))} | {self.ratio(row, limit):.2f} |"
            for row, values in self.samples.items()
        ]
        if self.goals:
            lines += ["", "| dspex | goal | measured | |", "|---|---|---:|---|"]
            lines += [
                f"| {goal.row} | {self._wanted(goal)} | {self._figure(goal)} | {self.verdict(goal)} |"
                for goal in self.goals
            ]
        return "\n".join(lines)

    def _wanted(self, goal: Goal) -> str:
        if goal.of:
            return f"≤ {goal.at_most:.2f} × {goal.called or goal.of}"  # noqa: RUF001
        many = f", {goal.times:,} of them" if goal.times > 1 else ""
        return f"≤ {self.unit(goal.at_most)}{many}"

    def _figure(self, goal: Goal) -> str:
        reached = self.reached(goal)
        return f"{reached:.2f}" if goal.of else self.unit(reached)

    def as_dict(self) -> dict[str, Any]:
        """All of it as plain data, with every round."""
        limit, *_ = self.samples
        return {
            "title": self.title,
            "rows": [
                {"row": row, "median": median(values), "ratio": self.ratio(row, limit), "rounds": values}
                for row, values in self.samples.items()
            ],
            "goals": [
                {
                    "row": goal.row,
                    "of": goal.of or None,
                    "at_most": goal.at_most,
                    "measured": self.reached(goal),
                    "verdict": self.verdict(goal),
                }
                for goal in self.goals
            ],
        }


# ---- measuring ---------------------------------------------------------------------------------------


def statement(label: str, code: str, *, calls: int = 1, **names: Any) -> Row:
    """
    A row that times *code*, which does what is timed *calls* times; *names* are its local variables.

    What is quick is repeated in the source, and all of it in a loop until a sample takes about 2 ms; the
    value of a round is the median of five samples, in processor time: what others run does not count. The
    garbage collector is off, as `timeit` has it.
    """

    def timer(copies: int) -> timeit.Timer:
        return timeit.Timer(
            "; ".join([code] * copies),
            setup="; ".join(f"{name} = __{name}" for name in names) or "pass",
            timer=time.process_time,
            globals={f"__{name}": value for name, value in names.items()},
        )

    once = min(timer(1).repeat(5, 2)) / 2
    copies = max(1, 20 // calls) if once < 1e-5 else 1
    chosen = timer(copies)
    number = max(1, round(SAMPLE / once / copies))
    chosen.timeit(number)
    return Row(label, lambda: median(chosen.repeat(5, number)) / (number * copies * calls))


def in_rounds(rows: Iterable[Row], rounds: int, seed: int = 0) -> dict[str, list[float]]:
    """The samples of *rows*: each once a round, in another order each round."""
    found = list(rows)
    samples: dict[str, list[float]] = {row.label: [] for row in found}
    order = random.Random(seed)
    for _ in range(rounds):
        gc.collect()
        for row in order.sample(found, len(found)):
            samples[row.label].append(row.run())
    return samples


def measured(
    key: str,
    title: str,
    rows: Iterable[Row],
    goals: Iterable[Goal] = (),
    *,
    rounds: int,
    unit: Unit = seconds,
) -> Table:
    """The table of *rows*, measured now, and printed."""
    table = Table(key, title, in_rounds(rows, rounds), tuple(goals), unit)
    print(f"### {title}\n\n{table}\n", flush=True)
    return table


# ---- telling -----------------------------------------------------------------------------------------


def machine(*packages: str) -> dict[str, str]:
    """What the figures depend on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
    optimized = "--enable-optimizations" in (sysconfig.get_config_var("CONFIG_ARGS") or "")
    return {
        "CPU": f"{cpu}, {os.cpu_count()} cores",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_implementation()} {platform.python_version()}, "
        f"{platform.python_compiler()}, {'with' if optimized else 'without'} PGO",
        "packages": ", ".join(f"{name} {metadata.version(name)}" for name in packages),
    }


def finish(
    about: Mapping[str, str],
    tables: Sequence[Table],
    *,
    json_file: Path | None,
    docs: Path | None,
    check: bool,
) -> int:
    """Print the last line, write *json_file* and *docs*; the exit code, which is 1 only for *check*."""
    verdicts = [table.verdict(goal) for table in tables for goal in table.goals]
    print(f"{len(verdicts) - verdicts.count(MISSED)} of {len(verdicts)} goals met.")
    if json_file is not None:
        data = {"machine": about, "noise": NOISE, "tables": [table.as_dict() for table in tables]}
        json_file.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n")
    if docs is not None:
        listed = "\n".join(f"- {key}: {value}" for key, value in about.items())
        text = _with(docs.read_text(), "machine", listed)
        for table in tables:
            text = _with(text, table.key, str(table))
        docs.write_text(text)
    missed = [sentence for table in tables for sentence in table.missed()]
    for sentence in missed if check else ():
        print(f"missed: {sentence}", file=sys.stderr)
    return 1 if check and missed else 0


def _with(text: str, key: str, part: str) -> str:
    """*text*, with *part* between the two comments that are called *key*."""
    before, begin, rest = text.partition(f"<!-- {key} -->\n")
    _, end, after = rest.partition(f"<!-- end of {key} -->")
    if not end:
        raise SystemExit(f"the docs have no place for the table '{key}'")
    return f"{before}{begin}\n{part}\n\n{end}{after}"

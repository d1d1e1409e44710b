"""The course in `examples/` runs, without a warning, and says what it says it does."""

import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"

SAYS = {
    "01_hello": ["HELLO, ADA!!!!", "refused: warmth must be at most 1.0 (got 2.0)"],
    "02_research_agent": [
        "'operator' set reasoning_strategy to Predict",
        "20 questions each",
        "A trade-off: with this model Predict takes",
    ],
    "03_watching": ["temperature: 0.7 -> 0.2 at revision 1, by 03", "the first one failed 1 time(s)"],
    "04_history": ["answered: 3", "back to version 1 -> 0.2", "back to what was shipped -> 0.7 1.0 0"],
    "05_forks": ["the live session kept: 0.7 chatty", "after: 0.3 brief score 1.0"],
    "09_distributed": ["two nodes serve it", "node a was killed", "agent: heard 1.0", "beneath: True"],
    "06_async": ["the operator set seconds to 0.02 meanwhile"],
    "08_optimize": ["held out, before:"],  # what it finds depends on how fast the machine is
}
SHORTER = {"08_optimize": ["--seconds", "20", "--held-out", "2"]}
"""What makes an example short enough for a test."""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What an example printed; each runs once."""

    @cache
    def run(name: str) -> str:
        # Strict, but for what libraries behind the model do themselves.
        strict = ["-W", "error"] if name not in ("02_research_agent", "08_optimize") else []
        done = subprocess.run(
            [sys.executable, *strict, EXAMPLES / f"{name}.py", *SHORTER.get(name, ())],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
            env={**os.environ, "HOME": str(tmp_path_factory.mktemp("home")), "COLUMNS": "120"},
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_every_example_is_known_here():
    assert sorted(SAYS) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("name", SAYS)
def test_an_example_runs_and_says_what_it_should(name, printed):
    assert [words for words in SAYS[name] if words not in printed(name)] == []


def test_the_agent_gets_faster_when_its_strategy_is_set(printed):
    """The same program, before and after `session.set`, on the real model."""
    table = dict(re.findall(r"(ChainOfThought|Predict) +\d+% +(\d\.\d+)", printed("02_research_agent")))
    assert float(table["Predict"]) < float(table["ChainOfThought"])

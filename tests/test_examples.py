"""The course in `examples/` runs, without a warning, and says what it says it does."""

import ast
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
    "07_pool": [
        "answered: 8 of 8",
        "by processes: 2",
        "was killed by SIGKILL while it ran",
        "asked again, answered in another process: True",
        "the pool has",
    ],
    "09_distributed": ["two nodes serve it", "node a was killed", "agent: heard 0.3", "beneath: True"],
    "06_async": ["the operator set seconds to 0.02 meanwhile"],
    "08_optimize": [
        "live at first:",
        "held out, before:",
        "held out, after:",
        "the goal of 0.7:",
        "rolled back:",
    ],
}
SHORTER = {"08_optimize": ["--trials", "2", "--seconds", "90", "--tried-on", "6", "--held-out", "3"]}
"""What makes an example short enough for a test."""


@pytest.fixture(scope="module")
def printed(tmp_path_factory):
    """What an example printed; each runs once."""

    @cache
    def run(name: str) -> str:
        # Strict, but for what libraries behind the model do themselves.
        strict = ["-W", "error"] if name not in ("02_research_agent", "07_pool", "08_optimize") else []
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


def test_the_winner_of_the_study_is_live_with_its_provenance_until_it_is_rolled_back(printed):
    """On the real model: trial 0 is what was there, trial 1 has examples, and is cold."""
    said = printed("08_optimize")
    live = dict(re.findall(r"^(live at first|live now|rolled back): (.+)$", said, re.MULTILINE))
    before, after = (
        float(score) for score in re.findall(r"^held out, (?:before|after): (\d\.\d+)", said, re.MULTILINE)
    )
    tried = re.findall(r"^ +(\d+) (\d\.\d\d) on  6 complete  (.+)$", said, re.MULTILINE)
    assert [(number, score) for number, score, _ in tried[:1]] == [("0", "0.00")]
    (winner, undone) = (
        (source, ast.literal_eval(why))
        for source, why in re.findall(r"^  set by '(.+)': (\{.+\})$", said, re.MULTILINE)
    )
    assert before < after
    assert live == {
        "live at first": "temperature 0.70, ChainOfThought, 0 demos",
        "live now": "temperature 0.00, ChainOfThought, 4 demos",
        "rolled back": "temperature 0.70, ChainOfThought, 0 demos",
    }
    score = winner[1].pop("score")
    assert (tried[1][:2], score > 0.0) == (("1", f"{score:.2f}"), True)
    assert winner == ("study minute", {"study": "minute", "trial": 1, "items": 6, "baseline": 0.0})
    assert undone == ("operator", {"rollback": "minute"})

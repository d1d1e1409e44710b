"""
08 Optimize: a study over temperature, strategy and demos together, on a real model and a live session.

The model is the small local one. The agent of example 02 starts badly: no examples, warm, and asked to reason
without having seen how. The study has about a minute. Its candidates run on forks; the live session changes
once, at the end, when the winner is committed with the study's name and score; and one line takes it back.
"""

import argparse
import logging
import random
import warnings

from rich.console import Console

from dspex import Demos, Float, ModuleChoice, Program, Session, defvariable
from dspex.evaluation import evaluate, exact_match
from dspex.modules import ChainOfThought, Predict
from dspex.optimizers import JointOptimizer

logging.getLogger("dspy").setLevel(logging.ERROR)  # of answers that are cut short, which the metric knows
warnings.filterwarnings("ignore", module="optuna")


class ResearchAgent(Program):
    """Answers a question; how it reasons can be changed while it runs."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    reasoning_strategy = defvariable(ModuleChoice("Predict", "ChainOfThought"), initial="ChainOfThought")
    demos = defvariable(Demos(fields=("question", "answer"), max_items=8), initial=[])

    def init(self):
        settings = {"temperature": ResearchAgent.temperature, "demos": ResearchAgent.demos, "max_tokens": 40}
        self.modules["Predict"] = Predict("question -> answer", **settings)
        self.modules["ChainOfThought"] = ChainOfThought("question -> answer", **settings)

    def forward(self, question):
        return self.reasoning_strategy(question=question).answer


def examples(seed=1):
    """Sums of three digits: 12 with their reasoning to learn from, 24 to try on, 40 that nobody sees."""
    digits = [(a, b, c) for a in range(1, 10) for b in range(1, 10) for c in range(1, 10)]
    rows = [
        {
            "question": f"{a} + {b} + {c} =",
            "reasoning": f"{a} + {b} = {a + b}, then {a + b} + {c} = {a + b + c}",
            "answer": str(a + b + c),
        }
        for a, b, c in random.Random(seed).sample(digits, 76)
    ]
    return rows[:12], rows[12:36], rows[36:]


def show(console, trial):
    """A line for each trial."""
    values = ", ".join(f"{name}={value}" for name, value in trial.shown.items())
    score = f"{trial.score:.2f} on {trial.items:2}" if trial.score is not None else trial.error
    console.print(f"  {trial.number:3} {score} {trial.state:9} {values}", highlight=False, markup=False)


def said(session):
    """What the session has."""
    yield f"temperature {session.get('temperature'):.2f},"
    yield f"{session.get('reasoning_strategy')},"
    yield f"{len(session.get('demos'))} demos"


def main(console, seconds, unseen, report):
    trainset, valset, held_out = examples()
    held_out = held_out[:unseen]
    with Session("prod", source="operator") as session:
        agent = ResearchAgent.bind(session)
        console.print(f"held out, before: {evaluate(agent, held_out, exact_match)}", highlight=False)

        optimizer = JointOptimizer(
            exact_match,
            teleprompters=(),  # sets of labelled examples are enough here
            demo_sets=8,
            first=[{"temperature": 0.0}],
            screen=6,
            trials=100,
            seconds=seconds,
            storage=None,
            study="minute",
            on_trial=lambda trial: show(console, trial),
        )
        study = optimizer.compile(agent, trainset=trainset, valset=valset)

        if study.receipt is None:
            console.print("nothing better was found in that time; the session is as it was")
            return
        console.print(f"held out, after:  {evaluate(agent, held_out, exact_match)}", highlight=False)
        winner = session.record("temperature")
        console.print("live now:", *said(session), highlight=False)
        console.print(f"  set by '{winner.source}': {dict(winner.metadata)}", highlight=False)
        if report:
            console.print(f"report: {study.report(report)}", highlight=False)

        study.rollback()
        console.print("rolled back:", *said(session), highlight=False)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0, help="for the study")
    arguments.add_argument("--held-out", type=int, default=40, help="examples for before and after")
    arguments.add_argument("--report", help="write an HTML report there")
    chosen = arguments.parse_args()
    main(Console(width=120), chosen.seconds, chosen.held_out, chosen.report)

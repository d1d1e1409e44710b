"""
08 Optimize: a study over temperature, strategy and demos together, on a real model and a live session.

The model is the small local one. The agent of example 02 starts badly: no examples, warm, and asked to reason
without having seen how. The study has about a minute to make 7 of 10 answers right that nobody has seen. Its
candidates run on forks. The live session changes once, at the end, when the winner is committed with study,
trial and score; and one line takes it back.
"""

import argparse
import logging
import random
import warnings

from dspex import Demos, Float, ModuleChoice, Program, Session, defvariable
from dspex.evaluation import evaluate, exact_match
from dspex.modules import ChainOfThought, Predict
from dspex.optimizers import JointOptimizer

logging.getLogger("dspy.clients.lm").setLevel(logging.ERROR)  # answers that are cut short: the metric knows
warnings.filterwarnings("ignore", module="optuna")

GOAL = 0.7
"""Of the questions that are held out."""


class ResearchAgent(Program):
    """Answers a question; how it reasons can be changed while it runs."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    reasoning_strategy = defvariable(ModuleChoice("Predict", "ChainOfThought"), initial="ChainOfThought")
    demos = defvariable(Demos(fields=("question", "answer"), max_items=8), initial=[])

    def init(self):
        settings = {"temperature": ResearchAgent.temperature, "demos": ResearchAgent.demos}
        settings |= {"max_tokens": 40, "seed": 8}  # with a seed, the same settings give the same answers
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


def show(trial):
    """A line for each trial."""
    values = ", ".join(f"{name}={value}" for name, value in trial.shown.items())
    score = f"{trial.score:.2f} on {trial.items:2}" if trial.score is not None else trial.error
    print(f"  {trial.number:3} {score} {trial.state:9} {values}")


def said(session):
    """What the session has, and who has set it why."""
    demos = session.record("demos")
    values = f"temperature {session.get('temperature'):.2f}, {session.get('reasoning_strategy')}"
    by = f"\n  set by '{demos.source}': {dict(demos.metadata)}" if demos.version else ""
    return f"{values}, {len(demos.value)} demos{by}"


def main(chosen):
    trainset, valset, held_out = examples()
    held_out = held_out[: chosen.held_out]
    with Session("prod", source="operator") as session:
        agent = ResearchAgent.bind(session)
        print(f"live at first: {said(session)}")
        print(f"held out, before: {evaluate(agent, held_out, exact_match)}")

        optimizer = JointOptimizer(
            exact_match,
            teleprompters=(),  # sets of labelled examples are enough here
            demo_sets=8,
            first=[{"temperature": 0.0}],
            screen=6,
            trials=chosen.trials,
            seconds=chosen.seconds,
            storage=None,
            study="minute",
            on_trial=show,
        )
        study = optimizer.compile(agent, trainset=trainset, valset=valset[: chosen.tried_on])
        if study.receipt is None:
            print("nothing better was found in that time; the session is as it was")
            return

        after = evaluate(agent, held_out, exact_match)
        print(f"held out, after: {after}")
        print(f"the goal of {GOAL}: {'reached' if after.score >= GOAL else 'not reached'}")
        print(f"live now: {said(session)}")
        if chosen.report:
            print(f"report: {study.report(chosen.report)}")

        study.rollback()
        print(f"rolled back: {said(session)}")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60.0, help="for the study")
    arguments.add_argument("--trials", type=int, default=100, help="at most")
    arguments.add_argument("--tried-on", type=int, default=24, help="examples that trials are scored on")
    arguments.add_argument("--held-out", type=int, default=40, help="examples for before and after")
    arguments.add_argument("--report", help="write an HTML report there")
    main(arguments.parse_args())

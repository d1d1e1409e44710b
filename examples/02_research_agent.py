"""
02 Research agent: a real language model answers, and changes strategy because somebody sets a variable.

The model is the small local one, unless DSPEX_LM or a configured DSPy says otherwise. It adds three digits:
with reasoning it is slow and mostly right, without it is fast and mostly wrong. Which of the two is wanted is
not decided at deployment: an operator, here a second thread, decides while the program runs.
"""

import argparse
import random
import threading

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dspex import Demos, Float, ModuleChoice, Program, Session, defvariable
from dspex.modules import ChainOfThought, Predict

DEMOS = [
    {
        "question": f"{a} + {b} + {c} =",
        "reasoning": f"{a} + {b} = {a + b}, then {a + b} + {c} = {a + b + c}",
        "answer": str(a + b + c),
    }
    for a, b, c in ((3, 5, 2), (6, 3, 1), (7, 7, 2), (2, 3, 6), (8, 8, 7), (4, 4, 6))
]


class ResearchAgent(Program):
    """Answers a question; how it reasons can be changed while it runs."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.0)
    reasoning_strategy = defvariable(ModuleChoice("Predict", "ChainOfThought"), initial="ChainOfThought")
    demos = defvariable(Demos(fields=("question", "answer"), max_items=8), initial=DEMOS)
    seconds = defvariable(Float(min=0.0), initial=0.0, description="How long the last answer took.")

    def init(self):
        settings = {"temperature": ResearchAgent.temperature, "demos": ResearchAgent.demos}
        self.modules["Predict"] = Predict("question -> answer", **settings)
        self.modules["ChainOfThought"] = ChainOfThought("question -> answer", **settings)

    def forward(self, question):
        return self.reasoning_strategy(question=question).answer


def operator(session, changes):
    """Watches how long answers take; once they take time, asks for the fast way."""
    for change in changes:
        session.set("reasoning_strategy", "Predict", {"seconds": round(change.new, 2)}, source="operator")
        return


def questions(count, seed):
    dice = random.Random(seed)
    for _ in range(count):
        digits = [dice.randint(1, 9) for _ in range(3)]
        yield " + ".join(map(str, digits)) + " =", str(sum(digits))


def warm_up():
    """Load the model and let it read both prompts once, so that the seconds below are those of answers."""
    with Session() as session:
        agent = ResearchAgent.bind(session)
        for agent.reasoning_strategy in ("ChainOfThought", "Predict"):
            agent("1 + 1 + 1 =")


def ask(agent, table, question, right):
    run = agent.record(question)
    table.add_row(
        question,
        run.values["reasoning_strategy"],
        str(run.first.rev),
        run.output,
        "right" if run.output == right else "wrong",
        f"{run.seconds:.2f}",
    )
    return run


def main(console, count=20):
    with console.status("Loading the language model, a few seconds …"):
        warm_up()
    with Session("demo", source="main") as session:
        agent = ResearchAgent.bind(session)

        watching = threading.Thread(target=operator, args=(session, session.changes("seconds")))
        watching.start()

        table = Table(
            "question",
            "strategy",
            "revision",
            "answer",
            "",
            "seconds",
            title="Two runs of one program",
            box=SIMPLE_HEAD,
            title_justify="left",
        )
        with session.changes("reasoning_strategy") as switched:
            (first, right), (second, right_too) = questions(2, seed=2)
            session.set("seconds", ask(agent, table, first, right).seconds)
            change = switched.next(timeout=30)
            ask(agent, table, second, right_too)
        watching.join()
        console.print(table)
        console.print(
            f"In between, '{change.source}' set {change.name} to {change.new} at revision {change.rev}: "
            f"the answer had taken {change.metadata['seconds']} s.\n",
            highlight=False,
        )

        table = Table(
            "strategy",
            "right",
            "seconds per answer",
            title=f"{count} questions each",
            box=SIMPLE_HEAD,
            title_justify="left",
        )
        correct, seconds = {}, {}
        columns = TextColumn("{task.description:14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
        with Progress(*columns, console=console) as progress:
            for strategy in ("ChainOfThought", "Predict"):
                session.set("reasoning_strategy", strategy)
                asked = progress.track(list(questions(count, seed=1)), description=strategy)
                runs = [(agent.record(question, pin=True), right) for question, right in asked]
                correct[strategy] = sum(run.output == right for run, right in runs) / count
                seconds[strategy] = sum(run.seconds for run, _ in runs) / count
                table.add_row(strategy, f"{correct[strategy]:.0%}", f"{seconds[strategy]:.3f}")
        console.print(table)
        share = seconds["Predict"] / seconds["ChainOfThought"]
        console.print(
            f"A trade-off: with this model Predict takes {share:.0%} of the time, and "
            f"{correct['Predict']:.0%} of its answers are right instead of {correct['ChainOfThought']:.0%}.",
            highlight=False,
        )


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--svg", help="also save the terminal as an SVG")
    chosen = arguments.parse_args()
    # Recorded as if it was no terminal: else every frame of a progress bar would be in the picture.
    terminal = Console(record=True, width=88, force_terminal=False) if chosen.svg else Console()
    main(terminal)
    if chosen.svg:
        terminal.save_svg(chosen.svg, title="make demo")

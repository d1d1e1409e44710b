"""
How good the optimizers are, on the small local model: joint, numbers only, prompts only; and what a trial
costs.

    python benchmarks/optimize.py [task …] [--seeds 3] [--calls 240] [--json results.json]

Tasks are `sum`, `topic`, `minute` (the sum within 67 seconds), `overhead` and `leaks`. Every seed draws its
own examples; those that are held out are in no prompt and in no trial. All three optimizers get the same
number of LM calls. The intervals are of the median seed's held-out score.
"""

import argparse
import json
import logging
import os
import random
import statistics
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Literal

from dspex import Choice, Demos, Float, Integer, ModuleChoice, Program, Session, defvariable, lm
from dspex.evaluation import ChoiceAccuracy, evaluate, exact_match
from dspex.modules import ChainOfThought, Predict
from dspex.optimizers import DSPyOptimizer, JointOptimizer, OptunaOptimizer

os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="dspy-cache-"))
logging.getLogger("dspy").setLevel(logging.ERROR)
warnings.simplefilter("ignore")

import dspy  # noqa: E402  after the folder for its cache is named


class Adder(Program):
    """Adds three digits."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    reasoning_strategy = defvariable(ModuleChoice("Predict", "ChainOfThought"), initial="ChainOfThought")
    demos = defvariable(Demos(fields=("question", "answer"), max_items=8), initial=[])

    def init(self):
        settings = {"temperature": Adder.temperature, "demos": Adder.demos, "max_tokens": 40}
        self.modules["Predict"] = Predict("question -> answer", **settings)
        self.modules["ChainOfThought"] = ChainOfThought("question -> answer", **settings)

    def forward(self, question):
        return self.reasoning_strategy(question=question).answer


def sums(seed):
    """12 examples with their reasoning to learn from, 24 to try on, 50 that nobody sees."""
    digits = [(a, b, c) for a in range(1, 10) for b in range(1, 10) for c in range(1, 10)]
    drawn = random.Random(seed).sample(digits, 86)
    rows = [
        {
            "question": f"{a} + {b} + {c} =",
            "reasoning": f"{a} + {b} = {a + b}, then {a + b} + {c} = {a + b + c}",
            "answer": str(a + b + c),
        }
        for a, b, c in drawn
    ]
    return rows[:12], rows[12:36], rows[36:]


class Topic(dspy.Signature):
    """Name the topic of a sentence."""

    sentence: str = dspy.InputField()
    label: Literal["sports", "food", "weather", "music"] = dspy.OutputField()


class Labeller(Program):
    """Says what a sentence is about."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    adapter = defvariable(Choice("json", "chat", "terse"), initial="json")
    demos = defvariable(Demos(fields=("sentence", "label"), max_items=8), initial=[])

    def init(self):
        self.ask = Predict(
            Topic,
            temperature=Labeller.temperature,
            adapter=Labeller.adapter,
            demos=Labeller.demos,
            max_tokens=30,
        )

    def forward(self, sentence):
        return self.ask(sentence=sentence).label


SENTENCES = json.loads((Path(__file__).parent / "topics.json").read_text())


def topics(seed):
    """12 sentences to learn from, 24 to try on, 60 that nobody sees; as many of each topic."""
    dice = random.Random(seed)
    parts = [], [], []
    for label, sentences in SENTENCES.items():
        drawn = dice.sample(sentences, len(sentences))
        rows = [{"sentence": one, "label": label} for one in drawn]
        for part, some in zip(parts, (rows[:3], rows[3:9], rows[9:24]), strict=True):
            part.extend(some)
    for part in parts:
        dice.shuffle(part)
    return parts


TASKS = {"sum": (Adder, sums, exact_match), "topic": (Labeller, topics, ChoiceAccuracy("label"))}


def optimizers(metric, seed, **budget):
    """The three, for one seed and one budget."""
    common = {"seed": seed, **budget}
    searching = {"trials": 200, "screen": 6, "storage": None, "first": [{"temperature": 0.0}]}
    return {
        "joint": JointOptimizer(metric, teleprompters=(), demo_sets=8, **searching, **common),
        "numbers only (Optuna)": OptunaOptimizer(metric, **searching, **common),
        "prompts only (DSPy)": DSPyOptimizer(
            metric,
            "BootstrapFewShotWithRandomSearch",
            # What it takes: bootstrapping, then each candidate once on the examples to try on.
            settings={
                "max_bootstrapped_demos": 2,
                "max_labeled_demos": 8,
                "num_candidate_programs": max(1, (budget.get("lm_calls", 240) - 48) // 28 - 3),
                "num_threads": 1,
            },
            most=1,
            storage=None,
            **{name: one for name, one in common.items() if name != "lm_calls"},
        ),
    }


def measured(task, name, seed, **budget):
    """One optimizer on one task, and the held-out scores before and after."""
    program, draw, metric = TASKS[task]
    train, val, held_out = draw(seed)
    with Session() as session:
        optimizer = optimizers(metric, seed, **budget)[name]
        began = time.process_time()
        study = optimizer.compile(program, trainset=train, valset=val, session=session)
        after = evaluate(program, held_out, metric, session=session)
        return {
            "task": task,
            "optimizer": name,
            "seed": seed,
            "held_out": after.score,
            "interval": after.interval,
            "val": study.best.score if study.best else None,
            "calls": study.lm_calls,
            "seconds": study.seconds,
            "cpu": time.process_time() - began,
            "trials": len(study.trials),
            "values": dict(study.best.shown) if study.best else {},
        }


def baseline(task, seed):
    """The declared initial values, on the same held-out examples."""
    program, draw, metric = TASKS[task]
    found = evaluate(program, draw(seed)[2], metric)
    return {
        "task": task,
        "optimizer": "none",
        "seed": seed,
        "held_out": found.score,
        "interval": found.interval,
        "calls": 0,
        "seconds": 0.0,
    }


def compare(task, seeds, calls, only):
    """All three, or those whose name has *only* in it, on one task at equal calls."""
    for seed in range(seeds):
        if only in "none":
            yield baseline(task, seed)
        for name in optimizers(exact_match, 0, lm_calls=calls):
            if only in name:
                yield measured(task, name, seed, lm_calls=calls)


def minute(seeds):
    """The sum within 67 seconds."""
    for seed in range(seeds):
        yield {**measured("sum", "joint", seed, seconds=67.0), "task": "minute"}


class Free(Program):
    """Costs nothing to run."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    strategy = defvariable(Choice("a", "b"), initial="a")
    k = defvariable(Integer(min=0, max=8), initial=0)

    def forward(self, x):
        return 0.5


def overhead(storage, trials=60, rounds=5):
    """Seconds for each trial of a study whose program costs nothing, beside bare Optuna, in turn."""
    import optuna

    from dspex.optimizers.storage import quietly

    ratios, ours_s, bare_s = [], [], []
    for number in range(rounds):
        with tempfile.TemporaryDirectory() as folder:
            url = None if storage is None else f"sqlite:///{folder}/bare.db"
            other = None if storage is None else f"sqlite:///{folder}/ours.db"
            with quietly():
                sampler = optuna.samplers.TPESampler(seed=number, multivariate=True, n_startup_trials=8)
                study = optuna.create_study(storage=url, sampler=sampler, direction="maximize")
                spaces = Free.search_space().to_optuna()
                began = time.perf_counter()
                for _ in range(trials):
                    study.tell(study.ask(spaces), 0.5)
                bare = (time.perf_counter() - began) / trials
            with Session() as session:
                Free.bind(session)
                optimizer = OptunaOptimizer(lambda _, pred: pred, trials=trials, storage=other, seed=number)
                found = optimizer.compile(Free, trainset=[{"x": 1}], session=session)
                ours = found.seconds / len(found.trials)
        ratios.append(ours / bare)
        ours_s.append(ours)
        bare_s.append(bare)
    return {
        "task": "overhead",
        "optimizer": storage or "memory",
        "ratio": statistics.median(ratios),
        "ours_ms": 1000 * statistics.median(ours_s),
        "bare_ms": 1000 * statistics.median(bare_s),
    }


def leaks(runs=10_000, parallel=8):
    """How many of so many runs, in trials at the same time, saw a value that was not their trial's."""
    points, lock = {}, threading.Lock()

    class Seeing(Program):
        a = defvariable(Float(min=0.0, max=1.0), initial=0.5)
        b = defvariable(Integer(min=0, max=10**9), initial=0)

        def forward(self, x):
            first = self.a, self.b
            time.sleep(0)
            with lock:
                points.setdefault(self.session.id, set()).update([first, (self.a, self.b)])
            return 0.5

    examples = [{"x": number} for number in range(50)]
    optimizer = OptunaOptimizer(
        lambda _, pred: pred, trials=runs // 50, parallel=parallel, storage=None, sampler="random"
    )
    with Session() as session:
        study = optimizer.compile(Seeing, trainset=examples, session=session)
        live = session.get("a"), session.get("b")
    tried = {(one.point["a"], one.point["b"]) for one in study.trials}
    mixed = sum(len(seen) != 1 or not seen <= tried for seen in points.values())
    return {
        "task": "leaks",
        "optimizer": f"{parallel} at a time",
        "runs": sum(one.items for one in study.trials),
        "trials": len(points),
        "mixed": mixed,
        "live untouched": live == (0.5, 0),
    }


def shown(rows):
    """Markdown."""
    print("\n| task | optimizer | held out, median | 95 % | of the seeds | LM calls | seconds |")
    print("|---|---|---:|---|---|---:|---:|")
    groups = {}
    for row in rows:
        if "held_out" in row:
            groups.setdefault((row["task"], row["optimizer"]), []).append(row)
    for (task, name), group in groups.items():
        group.sort(key=lambda row: row["held_out"])
        middle = group[len(group) // 2]
        low, high = middle["interval"]
        seeds = ", ".join(f"{row['held_out']:.3f}" for row in group)
        calls = round(statistics.median(row["calls"] for row in group))
        seconds = statistics.median(row["seconds"] for row in group)
        print(
            f"| {task} | {name} | {middle['held_out']:.3f} | {low:.2f} to {high:.2f} | {seeds} | {calls} | "
            f"{seconds:.0f} |"
        )
    for row in rows:
        if "held_out" not in row:
            print(row)


def run(chosen):
    """The rows of the tasks that were asked for, as they come."""
    for task in chosen.tasks:
        if task == "overhead":
            yield from (overhead(storage) for storage in (None, "sqlite"))
        elif task == "leaks":
            yield leaks()
        elif task == "minute":
            yield from minute(chosen.seeds)
        else:
            yield from compare(task, chosen.seeds, chosen.calls, chosen.only)


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("tasks", nargs="*", default=["overhead", "leaks", "topic", "minute", "sum"])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--calls", type=int, default=200)
    arguments.add_argument("--only", default="", help="one optimizer, by a part of its name")
    arguments.add_argument("--threads", type=int, help="of the model; by default as many as there are cores")
    arguments.add_argument("--json", type=Path)
    chosen = arguments.parse_args()
    rows = []
    with dspy.context(lm=lm.local(threads=chosen.threads)):
        for row in run(chosen):
            print(json.dumps(row, default=str), flush=True)
            rows.append(row)
            if chosen.json:
                chosen.json.write_text(json.dumps(rows, default=str, indent=1))
    shown(rows)


if __name__ == "__main__":
    main()

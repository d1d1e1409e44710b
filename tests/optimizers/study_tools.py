"""Programs with a best point, and a stand-in for the model that is good under the right settings."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from contextlib import contextmanager
from pathlib import Path

# `import dspy` makes a folder for its cache, by default in the home directory.
os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="dspy-cache-"))

from dspex import Choice, Demos, Float, Integer, ModuleChoice, Program, Text, defvariable, rule
from dspex.evaluation import exact_match
from dspex.modules import ChainOfThought, Predict
from dspex.optimizers import DSPyOptimizer, JointOptimizer, OptunaOptimizer


class Tuned(Program):
    """Best at temperature 0.3, brief, 3."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    style = defvariable(Choice("brief", "chatty"), initial="chatty")
    words = defvariable(Integer(min=1, max=8), initial=4, when=(style, "chatty"))
    grade = defvariable(Choice(1, 2, 3, ordered=True), initial=2)

    def forward(self, x):
        return 0.8 - abs(self.temperature - 0.3) / 2 - (self.style == "chatty") * 0.1 + self.grade / 20

    @rule
    def brief_and_cold(self):
        return "brief must not be hot" if self.style == "brief" and self.temperature > 1.2 else None


class Adder(Program):
    """Best when it is cold and shown two examples; see `Pupil`."""

    temperature = defvariable(Float(min=0.0, max=1.0), initial=0.0)
    strategy = defvariable(ModuleChoice("plain", "thinking"), initial="plain")
    task = defvariable(Text(), initial="Add.")
    demos = defvariable(Demos(fields=("question", "answer"), max_items=4), initial=[])

    def init(self):
        settings = {"temperature": Adder.temperature, "demos": Adder.demos, "instructions": Adder.task}
        self.modules["plain"] = Predict("question -> answer", **settings)
        self.modules["thinking"] = ChainOfThought("question -> answer", **settings)

    def forward(self, question):
        return self.strategy(question=question).answer


ROWS = [{"question": f"{a}+{b}", "answer": str(a + b)} for a in range(1, 5) for b in range(1, 5)]
TRAIN, VAL = ROWS[::2], ROWS[1::2]


class Pupil:
    """
    An engine in DSPy's chat format that knows how to add when it is shown how.

    It is right when its prompt has two examples or more and its temperature is at most 0.5.
    """

    supports_response_schema = False
    supports_function_calling = False
    supports_reasoning = False
    supported_params = ("temperature", "max_tokens", "top_p", "seed", "stop")

    def __init__(self):
        self.calls = 0

    def complete(self, request):
        from dspy import lm15

        self.calls += 1
        asked = request.messages[-1].text
        names = re.findall(r"\[\[ ## (\w+) ## \]\]", asked.split("Respond with the corresponding")[-1])
        question = re.findall(r"(\d+)\+(\d+)", asked)
        examples = sum(message.role == "assistant" for message in request.messages)
        able = examples >= 2 and (request.config.temperature or 0.0) <= 0.5
        said = {
            "answer": str(sum(map(int, question[-1])) if question and able else 0),
            "proposed_instruction": "Add the two numbers.",
            "proposed_prefix_for_output_field": "Sum:",
            "completed": "",
        }
        text = "\n\n".join(f"[[ ## {name} ## ]]\n{said.get(name, f'some {name}')}" for name in names)
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant([lm15.TextPart(text)]),
            finish_reason="stop",
            usage=lm15.Usage(input_tokens=10, output_tokens=2, total_tokens=12),
        )


@contextmanager
def asked(engine):
    """Let everything in the block ask *engine*."""
    import dspy

    lm = dspy.LM("local/pupil", engine=engine, cache=False, temperature=0.0)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        yield engine


# ---- searches that are ended in the middle ----------------------------------------------------------


class Diary:
    """Lines in a file, which outlive the process; at the last one *end* is called."""

    def __init__(self, path, last=None, number=1, end=None):
        self.path, self.last, self.number, self.end = Path(path), last, number, end

    def add(self, line):
        with self.path.open("a") as file:
            file.write(f"{line}\n")
        if line == self.last and self.lines().count(line) == self.number:
            self.end()

    def lines(self):
        return self.path.read_text().splitlines()


class Finding:
    """One of DSPy's optimizers: it finds two, then three and one examples, and says when it begins."""

    def __init__(self, diary, name="found"):
        self.diary, self.name = diary, name

    def compile(self, student, *, trainset):
        self.diary.add(self.name)
        found, *others = [self.shown(student, count) for count in (2, 3, 1)]
        found.candidate_programs = others
        return found

    def shown(self, student, count):
        import dspy

        found = student.deepcopy()
        for predictor in found.predictors():
            predictor.demos = [dspy.Example(**row) for row in TRAIN[:count]]
        return found


class Second(Finding):
    """Another one."""


KINDS = ("optuna", "dspy", "joint")


def made(kind, diary, metric=exact_match, **options):
    """An optimizer of that kind; four trials, of which each example is a line of *diary*."""

    def noted(gold, pred, trace=None):
        diary.add("example")
        return metric(gold, pred)

    options = {"study": "ended", **options}
    if kind == "dspy":
        return DSPyOptimizer(noted, **{"teleprompter": Finding(diary), **options})
    if kind == "optuna":
        return OptunaOptimizer(noted, trials=4, **options)
    found = (Finding(diary), Second(diary, "second"))
    return JointOptimizer(noted, trials=4, teleprompters=found, demo_sets=1, **options)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)

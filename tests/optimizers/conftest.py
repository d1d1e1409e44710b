"""Programs with a best point, and a stand-in for the model that is good under the right settings."""

from __future__ import annotations

import os
import re
import tempfile

import pytest

from dspex import Choice, Float, Integer, Program, Session, defvariable, rule

# `import dspy` makes a folder for its cache, by default in the home directory.
os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="dspy-cache-"))


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


@pytest.fixture
def tuned():
    return Tuned


@pytest.fixture
def live():
    """A session that the program is bound to."""
    with Session("live", source="tests") as session:
        Tuned.bind(session)
        yield session


@pytest.fixture
def rows():
    return [{"x": x} for x in range(20)]


@pytest.fixture
def file(tmp_path):
    """A storage in a file."""
    return f"sqlite:///{tmp_path}/studies.db"


def output(gold, pred, trace=None):
    """A metric: the program says itself how good it is."""
    return pred


@pytest.fixture
def said():
    return output


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


@pytest.fixture
def pupil():
    """The engine, used by everything in the test."""
    import dspy

    engine = Pupil()
    lm = dspy.LM("local/pupil", engine=engine, cache=False, temperature=0.0)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        yield engine

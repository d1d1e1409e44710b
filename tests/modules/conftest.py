"""A recording stand-in for the model: the settings are read off the requests that it got."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from pathlib import Path

import pytest

# `import dspy` makes a folder for its cache, by default in the home directory.
os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="dspy-cache-"))
sys.path.insert(0, str(Path(__file__).parent))  # for streaming_tools
from streaming_tools import Speaking, bound, taken

_asked = re.compile(r"\[\[ ## (\w+) ## \]\]")


class Recorder:
    """
    An engine that keeps the requests and fills the fields that DSPy's chat format asks for.

    *fields* has by name a text, a list of texts for one request each, or a function of the request.
    """

    supports_response_schema = False
    supports_function_calling = False
    supports_reasoning = False
    supported_params = ("temperature", "max_tokens", "top_p", "seed", "stop")

    def __init__(self, fields):
        self.fields = fields
        self.text = None
        """What is said instead, whatever was asked."""
        self.requests = []

    def complete(self, request):
        from dspy import lm15

        self.requests.append(request)
        text = self.text
        if text is None:
            names = _asked.findall(request.messages[-1].text.split("Respond with the corresponding")[-1])
            text = "\n\n".join(f"[[ ## {name} ## ]]\n{self._say(name, request)}" for name in names)
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant([lm15.TextPart(text)]),
            finish_reason="stop",
            usage=lm15.Usage(),
        )

    def _say(self, name, request):
        said = self.fields.get(name, f"some {name}" if name != "completed" else "")
        if isinstance(said, list):
            said = said.pop(0)
        return said(request) if callable(said) else said

    @property
    def last(self):
        return self.requests[-1]

    def configs(self, name):
        """What each request said about one parameter."""
        return [getattr(request.config, name) for request in self.requests]


class AsyncRecorder:
    """The awaited half of a recorder."""

    def __init__(self, sync):
        self.sync = sync
        self.awaited = 0

    async def complete(self, request):
        self.awaited += 1
        return self.sync.complete(request)


@pytest.fixture(autouse=True)
def _nobody_configures(monkeypatch):
    """`dspy.configure` belongs to whoever owns the process."""
    import dspy

    def refuse(*_, **named):
        raise AssertionError(f"dspy.configure was called with {named}")

    monkeypatch.setattr(dspy, "configure", refuse)
    monkeypatch.setattr(type(dspy.settings), "configure", refuse)
    monkeypatch.delenv("DSPEX_LM", raising=False)


@pytest.fixture
def recorder():
    """Make a recorder and the LM that asks it: `recorder(answer="4")`."""
    import dspy

    def make(name="recorder", /, async_engine=AsyncRecorder, **fields):
        engine = Recorder(fields)
        engine.waiting = async_engine(engine)
        lm = dspy.LM(f"test/{name}", engine=engine, async_engine=engine.waiting, cache=False, num_retries=0)
        return engine, lm

    return make


@pytest.fixture
def instructions():
    """The instructions in a request, as DSPy's chat format writes them."""

    def of(request):
        lines = request.system.split("your objective is:", 1)[1].splitlines()
        return "\n".join(line.strip() for line in lines).strip()

    return of


@pytest.fixture
def demos():
    """The examples in a request, each as the texts of its inputs and of its outputs."""

    def of(request):
        texts = [message.text for message in request.messages[:-1]]
        return list(zip(texts[::2], texts[1::2], strict=True))

    return of


@pytest.fixture(params=["sync", "async"])
def called(request):
    """Call a module either way: `called(module, question="…")`."""

    def sync(module, **inputs):
        return module(**inputs)

    def awaited(module, **inputs):
        called = module if hasattr(module, "bound_to") else bound(module)
        return asyncio.run(called.acall(**inputs))

    return {"sync": sync, "async": awaited}[request.param]


@pytest.fixture
def speaking(recorder):
    """Make the engine of a recorder speak, and the LM that asks it: `speaking(size=3, answer="4")`."""

    def make(size=1, allowed=None, **fields):
        engine, lm = recorder(**fields)
        return Speaking(engine, size, allowed), lm

    return make


@pytest.fixture(params=["sync", "async"])
def streamed(request):
    """The pieces of a module, and its prediction, either way."""

    def sync(module, **inputs):
        stream = bound(module).stream(**inputs)
        return list(stream), stream.output

    def awaited(module, **inputs):
        async def here():
            return await taken(bound(module).astream(**inputs))

        return asyncio.run(here())

    return {"sync": sync, "async": awaited}[request.param]

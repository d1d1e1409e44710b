"""A recording stand-in for the model, for what needs no model to be known."""

from __future__ import annotations

import os
import tempfile

import pytest

# `import dspy` makes a folder for its cache, by default in the home directory.
os.environ.setdefault("DSPY_CACHEDIR", tempfile.mkdtemp(prefix="dspy-cache-"))


class Recorder:
    """An engine that says *texts* in turn and keeps the requests."""

    supports_raw_completion = True

    def __init__(self, *texts, finish="stop"):
        self.texts = list(texts)
        self.finish = finish
        self.requests = []

    def complete(self, request):
        from dspy import lm15

        self.requests.append(request)
        text = self.texts.pop(0)
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant([lm15.TextPart(text)]),
            finish_reason=self.finish,
            usage=lm15.Usage(),
        )

    @property
    def prompt(self):
        return self.requests[-1].messages[0].text

    @property
    def config(self):
        return self.requests[-1].config

    @property
    def grammar(self):
        return self.config.extensions["grammar"]


class AsyncRecorder:
    """The awaited half of a recorder."""

    def __init__(self, sync):
        self.sync = sync

    async def complete(self, request):
        return self.sync.complete(request)


@pytest.fixture
def recorder():
    """Make a recorder and the LM that asks it."""
    import dspy

    def make(*texts, finish="stop", **settings):
        engine = Recorder(*texts, finish=finish)
        lm = dspy.LM(
            "local/recorder", engine=engine, async_engine=AsyncRecorder(engine), cache=False, **settings
        )
        return engine, lm

    return make


@pytest.fixture(scope="session")
def lm():
    """The real local model."""
    from dspex.lm import local

    return local()

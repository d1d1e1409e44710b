"""The text of a language model, from a worker to whoever asks, wherever that is."""

from __future__ import annotations

import asyncio
import json
import sys
import textwrap

import pytest

pytest.importorskip("grpc")
pytest.importorskip("dspy")

from dspex import InvalidCall, Session
from dspex.pool import Pool
from dspex.pool.serving import Programs, RemotePrograms
from dspex.rpc import Server
from dspex.stores import MemoryStore

PROGRAMS = """
import threading
from pathlib import Path

import dspy
from dspy import lm15

from dspex import Float, Program, defvariable
from dspex.modules import Predict


class Speaking:
    '''Says its temperature, letter by letter, as often as it is asked to.'''

    def complete(self, request):
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant([lm15.TextPart(text(request))]),
            finish_reason="stop",
            usage=lm15.Usage(),
        )

    def stream(self, request):
        said = 0
        try:
            yield lm15.StreamStartEvent(model=request.model)
            for letter in text(request):
                yield lm15.StreamDeltaEvent(lm15.TextDelta(letter))
                said += 1
                if said == len("[[ ## answer ## ]]\\na") and question(request) == "waits":
                    threading.Event().wait(60)
            yield lm15.StreamEndEvent(finish_reason="stop", usage=lm15.Usage())
        finally:
            path = question(request).partition("@")[2]
            if path:
                Path(path).write_text(str(said))


def question(request):
    return request.messages[-1].text.split("]]")[1].split()[0]


def text(request):
    times = int(question(request).partition("@")[0].replace("waits", "1"))
    return "[[ ## answer ## ]]\\n" + times * f"at {request.config.temperature}, "


class Teller(Program):
    temperature = defvariable(Float(min=0.0, max=2.0), initial=0.5)

    def init(self):
        speaking = dspy.LM("test/speaking", engine=Speaking(), cache=False, num_retries=0)
        self.tell = Predict("question -> answer", temperature=Teller.temperature, lm=speaking)

    def forward(self, question):
        prediction = yield from self.tell.stream(question=question)
        return prediction.answer


class Plain(Teller):
    def init(self):
        speaking = dspy.LM("test/speaking", engine=Speaking(), cache=False, num_retries=0)
        self.tell = Predict("question -> answer", temperature=Teller.temperature, lm=speaking, stream=True)

    def forward(self, question):
        return self.tell(question=question).answer
"""
ENDLESS = 1_000_000


@pytest.fixture(params=["Teller", "Plain"])
def teller(tmp_path, monkeypatch, request):
    """The class of a program, whose module the workers find, too."""
    (tmp_path / "telling_of_tests.py").write_text(textwrap.dedent(PROGRAMS))
    monkeypatch.syspath_prepend(tmp_path)
    import telling_of_tests

    yield getattr(telling_of_tests, request.param)
    sys.modules.pop("telling_of_tests", None)


@pytest.fixture
def workers(teller):
    with Pool([teller], workers=1, spares=0, pieces=8) as made:
        made.wait_ready()
        yield made


def test_a_worker_streams_what_its_model_says(teller, workers, tmp_path, eventually):
    with Session() as session:
        teller.bind(session)
        session.set("temperature", 1.5)
        stream = teller.stream("2", session=session, pool=workers)
        pieces = list(stream)
        assert "".join(pieces) == stream.output == "at 1.5, at 1.5,"
        assert len(pieces) > 5
        assert teller.run("2", session=session, pool=workers) == "at 1.5, at 1.5,"
        asyncio.run(awaited(teller, workers, session))

    left = tmp_path / "left"
    stream = teller.stream(f"{ENDLESS}@{left}", pool=workers)
    assert next(stream) == "a"
    with pytest.raises(InvalidCall):
        _ = stream.output
    stream.close()
    eventually(left.exists, "the model was left")
    eventually(left.read_text, "it has said how far it came")
    assert int(left.read_text()) < 1000
    assert teller.run("1", pool=workers) == "at 0.5,"
    assert workers.tally.lost == 0


def test_a_call_is_cancelled_while_its_model_says_nothing(teller, workers):
    stream = teller.stream("waits", pool=workers)
    assert next(stream) == "a"
    stream.close()
    assert teller.run("1", pool=workers) == "at 0.5,"
    assert workers.tally.lost == 0


async def awaited(teller, workers, session):
    stream = teller.astream("2", session=session, pool=workers)
    assert "".join([piece async for piece in stream]) == stream.output == "at 1.5, at 1.5,"


def test_a_server_and_a_shell_stream_what_a_model_says(teller, workers, tmp_path, eventually):
    from typer.testing import CliRunner

    from dspex.cli.app import app

    store = MemoryStore()
    programs = Programs(store, workers)
    server = Server(store, more=(programs,)).start()
    name = f"{teller.__module__}:{teller.__name__}"
    try:
        with Session("prod", store=server.url) as session, RemotePrograms(server.url) as there:
            teller.bind(session)
            session.set("temperature", 0.25)
            pieces = list(there.stream(name, "2", session="prod"))
            assert ("".join(pieces), len(pieces) > 5) == ("at 0.25, at 0.25,", True)
            assert there.run(name, "2", session="prod") == "at 0.25, at 0.25,"

            left = tmp_path / "left"
            stream = there.stream(name, f"{ENDLESS}@{left}", session="prod")
            assert next(stream) == "a"
            stream.close()
            eventually(lambda: left.exists() and left.read_text(), "the model was left")
            assert int(left.read_text()) < 1000

            def said(*options):
                return CliRunner().invoke(app, ["run", name, "2", *options]).stdout

            assert said("--server", server.url, "--session", "prod") == "at 0.25, at 0.25,\n"
            assert said() == "at 0.5, at 0.5,\n"
            lines = [json.loads(line)["output"] for line in said("--json").splitlines()]
            assert ("".join(lines), len(lines) > 5) == ("at 0.5, at 0.5,", True)
    finally:
        server.stop(1)
        programs.close()

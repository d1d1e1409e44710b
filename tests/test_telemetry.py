"""What OpenTelemetry is told: spans of runs, steps, requests and commits, across processes, and pools."""

import asyncio
import sys

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from dspex import Float, InvalidValue, MissingExtra, Program, Session, defvariable, telemetry
from dspex.modules import FunctionModule


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=2.0), initial=0.7)
    top_p = defvariable(Float(min=0.0, max=1.0), initial=1.0)

    def init(self):
        self.modules["double"] = FunctionModule(double, temperature=Agent.temperature)

    def forward(self, number):
        return self.modules["double"](number=number)

    async def aforward(self, number):
        return await self.modules["double"].acall(number=number)


class Failing(Program):
    def forward(self):
        raise LookupError("nothing there")


class Counting(Program):
    def forward(self, to):
        yield from range(to)


def double(number, temperature):
    return 2 * number


@pytest.fixture
def told():
    """The spans that have ended, by name, in order."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable(provider)
    yield exporter.get_finished_spans
    telemetry.disable()
    provider.shutdown()


def by_name(spans):
    assert len({span.name for span in spans}) == len(spans)
    return {span.name: span for span in spans}


def test_nobody_is_told_before_it_is_enabled_and_after_it_is_disabled(told):
    telemetry.disable()
    with Session() as session:
        session.register("x", Float(), initial=0.0)
        session.set("x", 1.0)
    assert () == told()


def test_a_run_says_what_it_read_and_its_steps_are_inside(told):
    with Session("s", store="memory://telemetry") as session:
        agent = Agent.bind(session)
        session.set("temperature", 0.2)
        told_before = len(told())
        assert agent.run(3) == 6
        step, run = told()[told_before:]
    assert run.name == "run Agent"
    assert {
        "dspex.program": "Agent",
        "dspex.session": "s",
        "dspex.revision": 1,
        "dspex.pinned": False,
        "dspex.version.temperature": 1,
        "dspex.version.top_p": 0,
    } == dict(run.attributes)
    assert step.name == "step FunctionModule"
    assert step.parent.span_id == run.context.span_id
    assert {"dspex.module": "FunctionModule", "dspex.setting.temperature": 0.2} == dict(step.attributes)


def test_an_async_run_and_one_with_a_time_limit_are_told_alike(told):
    with Session() as session:
        assert asyncio.run(Agent.arun(3, session=session)) == 6
        assert Agent.run(3, session=session, timeout=30) == 6
    spans = [span for span in told() if span.name != "commit"]
    assert ["step FunctionModule", "run Agent"] * 2 == [span.name for span in spans]
    for step, run in (spans[:2], spans[2:]):
        assert step.parent.span_id == run.context.span_id


def test_a_run_that_fails_says_why(told):
    with pytest.raises(LookupError):
        Failing.run()
    run = by_name(told())["run Failing"]
    assert run.status.status_code is StatusCode.ERROR
    assert ["LookupError"] == [event.attributes["exception.type"] for event in run.events]


def test_a_stream_is_one_span_that_is_not_current_between_its_pieces(told):
    from opentelemetry import trace

    with Session() as session:
        for _ in Counting.stream(3, session=session):
            assert not trace.get_current_span().get_span_context().is_valid
    assert by_name(told())["run Counting"].end_time is not None


def test_a_commit_says_what_it_set_and_who_did_and_what_became_of_it(told):
    with Session("s", store="memory://telemetry", source="tuner") as session:
        session.register("x", Float(max=2.0), initial=0.0)
        session.register("y", Float(), initial=0.0)
        before = len(told())
        session.update({"x": 1.0, "y": 2.0})
        with session.batch():
            session.set("x", 2.0)
            session.set("y", 3.0)
        both, batch = told()[before:]
        with pytest.raises(InvalidValue):
            session.set("x", 3.0)
    assert {
        "dspex.session": "s",
        "dspex.source": "tuner",
        "dspex.names": ("x", "y"),
        "dspex.revision": 1,
        "dspex.version.x": 1,
        "dspex.version.y": 1,
    } == dict(both.attributes)
    assert batch.attributes["dspex.revision"] == 2
    assert told()[-1].status.status_code is StatusCode.ERROR


@pytest.mark.parametrize("store", ["memory://", "sqlite"])
def test_a_commit_on_a_server_goes_on_with_the_trace_of_its_client(told, store, tmp_path):
    pytest.importorskip("grpc")
    from dspex.rpc import Server

    url = "memory://telemetry-served" if store == "memory://" else f"sqlite:///{tmp_path}/s.db"
    with Server(url) as server, Session("s", store=server.url) as session:
        session.register("x", Float(), initial=0.0)
        before = len(told())
        session.set("x", 1.0)
        served, commit = told()[before:]
    assert ("serve commit", "commit") == (served.name, commit.name)
    assert served.parent.span_id == commit.context.span_id
    assert served.parent.is_remote
    assert served.attributes["dspex.version.x"] == commit.attributes["dspex.version.x"] == 1


def test_a_request_to_a_language_model_is_told_under_the_common_names(told):
    dspy = pytest.importorskip("dspy")
    from dspy.utils import DummyLM

    from dspex.modules import Predict

    class Asking(Program):
        temperature = defvariable(Float(min=0.0, max=2.0), initial=0.5)

        def init(self):
            self.modules["ask"] = Predict("question -> answer", temperature=Asking.temperature)

        def forward(self, question):
            return self.modules["ask"](question=question).answer

    with dspy.context(lm=DummyLM([{"answer": "yes"}] * 2)):
        assert Asking.run("well?") == "yes"
    spans = by_name([span for span in told() if span.name != "commit"])
    chat = spans["chat dummy"]
    assert chat.parent.span_id == spans["step Predict"].context.span_id
    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "dummy",
        "gen_ai.request.temperature": 0.5,
    }.items() <= dict(chat.attributes).items()


WORKER = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from dspex import Program, telemetry

telemetry.enable(TracerProvider())


class Telling(Program):
    def forward(self):
        here = trace.get_current_span()
        return here.name, f"{here.context.trace_id:032x}", f"{here.parent.span_id:016x}"
"""


def test_a_pool_takes_the_trace_along_and_counts_its_calls(told, tmp_path, monkeypatch):
    pytest.importorskip("grpc")
    from dspex.pool import Pool

    reader = InMemoryMetricReader()
    meters = MeterProvider([reader])
    provider = TracerProvider()
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    (tmp_path / "telling.py").write_text(WORKER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with Pool("telling:Telling", workers=1, spares=0) as pool:
        telemetry.enable(provider, meters)
        name, trace_id, parent = pool.submit("telling:Telling").result(30)
        (call,) = exporter.get_finished_spans()
        data = reader.get_metrics_data()
        telemetry.disable()
        after = reader.get_metrics_data()
    meters.shutdown()
    assert (name, call.name) == ("run Telling", "call telling:Telling")
    assert f"{call.context.trace_id:032x}" == trace_id
    assert f"{call.context.span_id:016x}" == parent
    assert call.attributes["dspex.outcome"] == "done"
    points = {
        metric.name: list(metric.data.data_points)
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
    }
    (duration,) = points["dspex.pool.call.duration"]
    assert duration.count == 1
    assert {"dspex.program": "telling:Telling", "dspex.outcome": "done"} == dict(duration.attributes)
    assert sum(point.value for point in points["dspex.pool.workers"]) == 1
    assert [0] == [point.value for point in points["dspex.pool.queue"]]
    left = [] if after is None else after.resource_metrics[0].scope_metrics
    assert ["dspex.pool.call.duration"] == [metric.name for scope in left for metric in scope.metrics]


def test_a_call_of_a_pool_that_fails_says_why_and_what_it_ran_is_its_child(told):
    from opentelemetry import trace

    call = telemetry.active.call("telling:Telling")

    def work(number):
        assert trace.get_current_span().get_span_context().span_id == call._span.context.span_id
        raise LookupError(f"nothing at {number}")

    with pytest.raises(LookupError) as raised:
        telemetry.active.within(call.carrier, work)(7)
    assert not trace.get_current_span().get_span_context().is_valid
    call.end("failed", raised.value)
    (span,) = told()
    assert (StatusCode.ERROR, "nothing at 7") == (span.status.status_code, span.status.description)
    assert ["LookupError"] == [event.attributes["exception.type"] for event in span.events]
    assert {"dspex.program": "telling:Telling", "dspex.outcome": "failed"} == dict(span.attributes)


def test_without_opentelemetry_it_says_which_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(MissingExtra) as missing:
        telemetry.enable()
    assert "dspex[telemetry]" in str(missing.value)
    assert telemetry.active is None


@pytest.mark.parametrize("name", ["tracer_provider", "meter_provider"])
def test_what_is_no_provider_is_refused(name):
    with pytest.raises(InvalidValue, match=f"{name} must be a provider of OpenTelemetry"):
        telemetry.enable(**{name: "x"})
    assert telemetry.active is None

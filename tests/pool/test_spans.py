"""What OpenTelemetry is told of calls that do not simply end."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc")
pytest.importorskip("opentelemetry.sdk")

from concurrent.futures import CancelledError

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from dspex import DeadlineExceeded, PoolSaturated, WorkerLost, telemetry
from dspex.testing import pool_programs as those


@pytest.fixture
def told():
    """The spans that have ended."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    telemetry.enable(provider)
    yield exporter.get_finished_spans
    telemetry.disable()
    provider.shutdown()


def test_a_span_says_what_became_of_its_call(pool, told, eventually):
    workers = pool(workers=1, queue=0)
    those.Echo.run(pool=workers)
    with pytest.raises(ValueError, match="no such thing"):
        those.Failing.run("builtin", pool=workers)
    with pytest.raises(DeadlineExceeded):
        those.Slow.run(60, pool=workers, timeout=0.05)
    eventually(lambda: not workers.stats().busy, "its worker has nothing to do")
    with pytest.raises(WorkerLost):
        workers.submit(those.Dying, "exit").result(30)
    workers.wait_ready()
    busy = workers.submit(those.Slow, 60)
    with pytest.raises(PoolSaturated):
        workers.submit(those.Echo)
    busy.cancel()
    with pytest.raises(CancelledError):
        busy.result()

    def calls():
        return [span for span in told() if span.name.startswith("call ")]

    eventually(lambda: len(calls()) == 6, "all spans have ended")
    assert {
        (span.name.rpartition(":")[2], span.attributes["dspex.outcome"], span.status.status_code.name)
        for span in calls()
    } == {
        ("Echo", "done", "UNSET"),
        ("Failing", "failed", "ERROR"),
        ("Slow", "expired", "ERROR"),
        ("Dying", "lost", "ERROR"),
        ("Echo", "rejected", "ERROR"),
        ("Slow", "cancelled", "UNSET"),
    }

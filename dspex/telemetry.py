"""
What runs, steps, language models, commits and pools do, told to OpenTelemetry.

Nothing is told before `enable`: each place that would tell asks whether `active` is None, and that is all.
Spans are children of the one that is current where they begin. Their context goes along with a call of a pool
and with a commit on a server, so that a trace does not end with the process.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet

from dspex import errors

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
    from opentelemetry.trace import Span, TracerProvider

    from dspex.commits import Commit, Receipt

__all__ = ["disable", "enable"]

T = TypeVar("T")

active: Telemetry | None = None
"""Who is told; None is nobody."""

_nobody = nullcontext()

pools: WeakSet[Any] = WeakSet()
"""The pools of this process, for the gauges."""


def enable(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> None:
    """
    Tell OpenTelemetry from now on, in this process: these providers, or the global ones.

    A worker of a pool is a process of its own: what it is to tell is enabled in the module of its programs.

    Raises:
        MissingExtra: OpenTelemetry is not installed.
        InvalidValue: One of them is no such provider.
    """
    for name, given, method in (
        ("tracer_provider", tracer_provider, "get_tracer"),
        ("meter_provider", meter_provider, "get_meter"),
    ):
        if given is not None and not hasattr(given, method):
            raise errors.InvalidValue.expecting("a provider of OpenTelemetry", errors.shown(given, 80)).at(
                name
            )
    global active  # noqa: PLW0603 - one switch for the process
    active = Telemetry(tracer_provider, meter_provider)


def disable() -> None:
    """Tell nobody any more."""
    global active  # noqa: PLW0603
    active = None


def running(program: Any) -> AbstractContextManager[Any]:
    """The span of a run of *program*, if anybody is told."""
    return _nobody if active is None else active.run(program)


class Steps:
    """
    What is done in steps, in the hands of somebody else between them: its span is current only in a step.

    Args:
        begun: Begins the span, if anybody is told.
    """

    def __init__(self, begun: Callable[[Telemetry], Span]) -> None:
        self._telemetry = active
        self._span = None if active is None else begun(active)

    def step(self) -> AbstractContextManager[Any]:
        """Around one step."""
        if self._telemetry is None or self._span is None:
            return _nobody
        context: AbstractContextManager[Any] = self._telemetry._trace.use_span(self._span)
        return context

    def end(self) -> None:
        """It has ended."""
        if self._span is not None:
            self._span.end()


def stepped(made: Generator[Any, None, Any], begun: Callable[[Telemetry], Span]) -> Generator[Any, None, Any]:
    """*made*, told as what is *begun* with its first piece."""
    return made if active is None else _stepped(made, begun)


def astepped(
    made: AsyncGenerator[Any, None], begun: Callable[[Telemetry], Span]
) -> AsyncGenerator[Any, None]:
    """`stepped`, awaited."""
    return made if active is None else _astepped(made, begun)


def _stepped(
    made: Generator[Any, None, Any], begun: Callable[[Telemetry], Span]
) -> Generator[Any, None, Any]:
    steps = Steps(begun)
    try:
        while True:
            with steps.step():
                try:
                    piece = next(made)
                except StopIteration as end:
                    return end.value
            yield piece
    finally:
        made.close()
        steps.end()


async def _astepped(
    made: AsyncGenerator[Any, None], begun: Callable[[Telemetry], Span]
) -> AsyncGenerator[Any, None]:
    steps = Steps(begun)
    try:
        while True:
            with steps.step():
                try:
                    piece = await anext(made)
                except StopAsyncIteration:
                    return
            yield piece
    finally:
        await made.aclose()
        steps.end()


class Telemetry:
    """The spans and the instruments of dspex."""

    def __init__(
        self, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
    ) -> None:
        try:
            from opentelemetry import metrics, propagate, trace
        except ImportError:
            raise errors.missing_extra("Spans and counters", "telemetry") from None
        self._trace, self._propagate, self._observation = trace, propagate, metrics.Observation
        self._tracer = trace.get_tracer("dspex", tracer_provider=tracer_provider)
        meter = metrics.get_meter("dspex", meter_provider=meter_provider)
        self._seconds = meter.create_histogram(
            "dspex.pool.call.duration", "s", "From when a call is given to a pool until it ends, by outcome."
        )
        meter.create_observable_up_down_counter(
            "dspex.pool.workers", [self._workers], "{worker}", "Workers that are ready, by what they do."
        )
        meter.create_observable_up_down_counter(
            "dspex.pool.queue", [self._queue], "{call}", "Calls that wait for a worker."
        )
        meter.create_observable_counter(
            "dspex.pool.workers.started", [self._started], "{worker}", "Workers that were started."
        )
        meter.create_observable_counter(
            "dspex.pool.workers.lost", [self._lost], "{worker}", "Workers that ended without being told to."
        )

    # ---- spans -------------------------------------------------------------------------------------

    def run(self, program: Any) -> AbstractContextManager[Span]:
        """Around a run of *program*: what it reads, with the version of each of its variables."""
        return self._tracer.start_as_current_span(**self._run(program))

    def run_in_steps(self, program: Any) -> Span:
        """The same for one whose steps others ask for."""
        return self._tracer.start_span(**self._run(program))

    @staticmethod
    def _run(program: Any) -> dict[str, Any]:
        snapshot = program._pin or program.session.snapshot()
        prefix, name = program._plan.prefix, type(program).__name__
        versions = {
            f"dspex.version.{one}": snapshot.record(prefix + one).version for one in type(program).variables
        }
        about = {
            "dspex.program": name,
            "dspex.session": snapshot.session,
            "dspex.revision": snapshot.revision.rev,
            "dspex.pinned": program._pin is not None,
        }
        return {"name": f"run {name}", "attributes": about | versions}

    def step(self, module: Any, settings: Mapping[str, Any]) -> AbstractContextManager[Span]:
        """Around a call of *module*; of its settings those that are numbers, which are no secrets."""
        return self._tracer.start_as_current_span(**self._step(module, settings))

    def step_in_steps(self, module: Any, settings: Mapping[str, Any]) -> Span:
        """The same for one whose pieces others ask for."""
        return self._tracer.start_span(**self._step(module, settings))

    @staticmethod
    def _step(module: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
        numbers = {
            f"dspex.setting.{key}": value for key, value in settings.items() if isinstance(value, int | float)
        }
        name = type(module).__name__
        return {"name": f"step {name}", "attributes": {"dspex.module": name, **numbers}}

    def chat(self, model: str, settings: Mapping[str, Any]) -> Span:
        """A request to a language model, under the names that OpenTelemetry has for it."""
        asked = {f"gen_ai.request.{key}": settings.get(key) for key in ("temperature", "max_tokens", "top_p")}
        return self._tracer.start_span(
            f"chat {model}",
            kind=self._trace.SpanKind.CLIENT,
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": model,
                **{key: value for key, value in asked.items() if isinstance(value, int | float)},
            },
        )

    @contextmanager
    def commit(self, session: str, commit: Commit) -> Iterator[Callable[[Receipt], None]]:
        """Around a commit, which gives its receipt to the function."""
        attributes: dict[str, Any] = {
            "dspex.session": session,
            "dspex.names": [write.name for write in commit.writes],
        }
        if commit.source is not None:
            attributes["dspex.source"] = commit.source
        with self._tracer.start_as_current_span("commit", attributes=attributes) as span:
            yield lambda receipt: self._receipt(span, receipt)

    @contextmanager
    def served(self, carrier: Mapping[str, str], session: str) -> Iterator[Callable[[Receipt], None]]:
        """The same in the server, for a client whose context is in *carrier*."""
        with self._tracer.start_as_current_span(
            "serve commit",
            self.context(carrier),
            self._trace.SpanKind.SERVER,
            attributes={"dspex.session": session},
        ) as span:
            yield lambda receipt: self._receipt(span, receipt)

    @staticmethod
    def _receipt(span: Span, receipt: Receipt) -> None:
        span.set_attribute("dspex.revision", receipt.rev)
        for change in receipt.changes:
            span.set_attribute(f"dspex.version.{change.name}", change.version)

    def failed(self, span: Span, error: BaseException) -> None:
        """*span* is of something that raised *error*."""
        span.record_exception(error)
        span.set_status(self._trace.StatusCode.ERROR, str(error))

    # ---- across processes --------------------------------------------------------------------------

    def carrier(self, span: Span | None = None) -> dict[str, str]:
        """The context of *span*, or the current one, as it travels."""
        carrier: dict[str, str] = {}
        context = None if span is None else self._trace.set_span_in_context(span)
        self._propagate.inject(carrier, context)
        return carrier

    def context(self, carrier: Mapping[str, str]) -> Context:
        """What travelled."""
        return self._propagate.extract(carrier)

    @contextmanager
    def continued(self, carrier: Mapping[str, str]) -> Iterator[None]:
        """What begins here is a child of what is in *carrier*."""
        from opentelemetry import context

        token = context.attach(self.context(carrier))
        try:
            yield
        finally:
            context.detach(token)

    def within(self, carrier: Mapping[str, str], call: Callable[..., T]) -> Callable[..., T]:
        """*call*, made in what travelled."""

        def made(*args: Any, **named: Any) -> T:
            with self.continued(carrier):
                return call(*args, **named)

        return made

    # ---- pools -------------------------------------------------------------------------------------

    def call(self, program: str) -> PoolCall:
        """A call of *program* that is given to a pool now."""
        span = self._tracer.start_span(
            f"call {program}", kind=self._trace.SpanKind.CLIENT, attributes={"dspex.program": program}
        )
        return PoolCall(self, span, program)

    def _workers(self, _: CallbackOptions) -> Iterable[Observation]:
        ready = busy = 0
        for pool in list(pools):
            stats = pool.stats()
            ready, busy = ready + stats.ready, busy + stats.busy
        if active is self:
            yield self._observation(busy, {"dspex.state": "busy"})
            yield self._observation(ready - busy, {"dspex.state": "idle"})

    def _queue(self, _: CallbackOptions) -> Iterable[Observation]:
        if active is self:
            yield self._observation(sum(pool.stats().queued for pool in list(pools)))

    def _started(self, _: CallbackOptions) -> Iterable[Observation]:
        if active is self:
            yield self._observation(sum(pool.tally.started for pool in list(pools)))

    def _lost(self, _: CallbackOptions) -> Iterable[Observation]:
        if active is self:
            yield self._observation(sum(pool.tally.lost for pool in list(pools)))


class PoolCall:
    """The span of a call that a pool runs, and how long it took."""

    def __init__(self, telemetry: Telemetry, span: Span, program: str) -> None:
        self._telemetry, self._span, self._program = telemetry, span, program
        self._began = time.monotonic()
        self.carrier = telemetry.carrier(span)

    def end(self, outcome: str, error: BaseException | None = None) -> None:
        """It has ended in that way."""
        about = {"dspex.program": self._program, "dspex.outcome": outcome}
        self._telemetry._seconds.record(time.monotonic() - self._began, about)
        self._span.set_attribute("dspex.outcome", outcome)
        if error is not None:
            self._telemetry.failed(self._span, error)
        self._span.end()

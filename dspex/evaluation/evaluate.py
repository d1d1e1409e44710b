"""Running a program over a dataset."""

from __future__ import annotations

import contextvars
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from typing import Any, Protocol

import attrs

from dspex import deadlines, errors
from dspex.evaluation.datasets import dataset as as_dataset
from dspex.evaluation.meter import metered
from dspex.evaluation.metrics import Metric, score_of
from dspex.evaluation.results import Evaluation, Scored
from dspex.program import Program
from dspex.records import Snapshot
from dspex.runs import Run
from dspex.session import Session

__all__ = ["Evaluating", "Pool", "class_of", "evaluate"]

PAUSE = 0.05
"""Seconds until a pool that others have filled is asked again."""


class Pool(Protocol):
    """Where runs can be sent instead of being made here."""

    def submit(
        self, program: Any, inputs: Mapping[str, Any], *, session: Session, deadline: float | None, pin: bool
    ) -> Future[Any]:
        """
        Run *program* on *session* within *deadline* seconds, pinned; gives the output or a `Run`.

        `PoolSaturated` says that there is no room just now: it is asked again.
        """
        ...


@attrs.frozen
class _Ran:
    """What a run gave, whichever way it was made."""

    output: Any
    seconds: float
    error: str | None = None
    lm_calls: int | None = None
    tokens: int | None = None
    cost: float | None = None


@attrs.define(eq=False)
class _Sent:
    """An item on its way."""

    example: Any
    future: Future[Any]
    began: float
    ended: float | None = None

    def end(self, _: Future[Any]) -> None:
        """It is done, whenever it is asked for."""
        self.ended = time.perf_counter()

    @property
    def seconds(self) -> float:
        """From being sent to the answer."""
        return (self.ended or time.perf_counter()) - self.began


def evaluate(
    program: Any,
    dataset: Any,
    metric: Metric,
    *,
    session: Session | None = None,
    num_threads: int = 1,
    deadline: float | None = None,
    failure_score: float = 0.0,
    pool: Pool | None = None,
    progress: bool = False,
) -> Evaluation:
    """
    Run *program* on every example and score what it returns.

    All runs read the values of one revision: that of *session* now. An example on which the program fails, or
    takes longer than its deadline, is an item with an error and *failure_score*.

    Args:
        program: A `Program` class, or a bound program.
        dataset: What `dspex.evaluation.dataset` takes.
        metric: Called as `metric(example, output, None)`.
        session: Where the values are; without one the initial values.
        num_threads: Items at the same time.
        deadline: Seconds for each item.
        failure_score: The score of an item that fails.
        pool: Where to run the items, if not in this process. LM calls are counted only in this process, and
            the seconds of an item are from its being sent to the answer.
        progress: Show a bar on stderr, where that is a terminal.

    Raises:
        InvalidValue: The dataset is empty or does not fit.
        MetricFailed: The metric raised, or gave no finite number.
    """
    with ExitStack() as stack:
        if session is None:
            session = program.session if isinstance(program, Program) else stack.enter_context(Session())
        assert session is not None
        examples = as_dataset(dataset, program=program)
        evaluating = Evaluating(
            program,
            metric,
            session,
            num_threads=num_threads,
            deadline=deadline,
            failure_score=failure_score,
            pool=pool,
        )
        shown = stack.enter_context(_bar(len(examples))) if progress else None
        items = []
        for item in evaluating.scored(examples):
            items.append(item)
            if shown is not None:
                shown(items)
        return evaluating.result(items)


class Evaluating:
    """
    A program with the values of one revision, ready to be scored on examples, some now and some later.

    Takes what `evaluate` takes, and means the same by it.
    """

    def __init__(
        self,
        program: Any,
        metric: Metric,
        session: Session,
        *,
        num_threads: int = 1,
        deadline: float | None = None,
        failure_score: float = 0.0,
        pool: Pool | None = None,
    ) -> None:
        if isinstance(num_threads, bool) or not isinstance(num_threads, int) or num_threads < 1:
            raise errors.InvalidValue.expecting("at least 1", errors.shown(num_threads)).at("num_threads")
        if deadline is not None:
            deadlines.check_seconds(deadline, "deadline", least="more than 0")
        self.program = program
        self.metric = metric
        self.session = session
        self.num_threads = num_threads
        self.deadline = deadline
        self.failure_score = failure_score
        self.pool = pool
        bound = program if isinstance(program, Program) else _bound(program, session)
        self.snapshot: Snapshot = session.snapshot()
        self._sent = session
        if pool is not None:
            self.snapshot, self._sent = _held(session)
        self._pinned = bound.pinned(self.snapshot)
        self._began = time.perf_counter()

    def scored(self, examples: Sequence[Any], first: int = 0) -> Iterator[Scored]:
        """
        The items in the order of *examples*, each as soon as it and those before it are done.

        *first* is the index of the first one in its dataset.
        """
        for index, (example, ran) in enumerate(self._ran(examples), first):
            failed = ran.error is not None
            score = self.failure_score if failed else score_of(self.metric, example, ran.output, index)
            yield Scored(
                example, ran.output, score, ran.seconds, ran.error, ran.lm_calls, ran.tokens, ran.cost
            )

    def result(self, items: Sequence[Scored]) -> Evaluation:
        """What *items* say together."""
        cls = type(self._pinned)
        return Evaluation(
            cls.__name__,
            self.session.id,
            str(self.snapshot.revision),
            tuple(items),
            time.perf_counter() - self._began,
            {name: self.snapshot[name] for name in cls.variables if name in self.snapshot},
        )

    def _ran(self, examples: Sequence[Any]) -> Iterator[tuple[Any, _Ran]]:
        if self.pool is None and self.num_threads == 1:
            for example in examples:
                yield example, self._run(example.inputs())
            return
        if self.pool is not None:
            yield from self._windowed(examples, self._send)
            return
        threads = ThreadPoolExecutor(self.num_threads, thread_name_prefix="dspex-evaluate")
        try:
            # A context cannot be entered twice at the same time: a copy for each.
            yield from self._windowed(
                examples,
                lambda inputs: threads.submit(contextvars.copy_context().run, self._run, inputs),
            )
        finally:
            threads.shutdown(wait=False, cancel_futures=True)

    def _windowed(
        self, examples: Sequence[Any], start: Callable[[Mapping[str, Any]], Future[Any]]
    ) -> Iterator[tuple[Any, _Ran]]:
        waiting: deque[_Sent] = deque()
        rest = iter(examples)
        try:
            while True:
                while len(waiting) < self.num_threads and (example := next(rest, None)) is not None:
                    waiting.append(_patiently(start, example, [one.future for one in waiting]))
                if not waiting:
                    return
                sent = waiting.popleft()
                yield sent.example, self._taken(sent)
        finally:
            for sent in waiting:
                sent.future.cancel()

    def _send(self, inputs: Mapping[str, Any]) -> Future[Any]:
        assert self.pool is not None
        return self.pool.submit(
            class_of(self.program), inputs, session=self._sent, deadline=self.deadline, pin=True
        )

    def _taken(self, sent: _Sent) -> _Ran:
        try:
            given = sent.future.result()
        except Exception as error:
            return _Ran(None, sent.seconds, _said(error))
        if isinstance(given, _Ran):
            return given
        if isinstance(given, Run):
            return _Ran(given.output, given.seconds)
        return _Ran(given, sent.seconds)

    def _run(self, inputs: Mapping[str, Any]) -> _Ran:
        began = time.perf_counter()
        with metered() as meter:
            error = output = None
            try:
                run: Run = self._pinned.record(**inputs, timeout=self.deadline)
                output, seconds = run.output, run.seconds
            except Exception as raised:
                error, seconds = _said(raised), time.perf_counter() - began
        if meter is None:
            return _Ran(output, seconds, error, 0, 0, None)
        return _Ran(output, seconds, error, meter.calls, meter.tokens, meter.cost)


def _patiently(
    start: Callable[[Mapping[str, Any]], Future[Any]], example: Any, ours: Sequence[Future[Any]]
) -> _Sent:
    """Begin *example* when there is room, which others may need too."""
    while True:
        began = time.perf_counter()
        try:
            sent = _Sent(example, start(example.inputs()), began)
        except errors.PoolSaturated:
            if running := [one for one in ours if not one.done()]:
                wait(running, PAUSE, FIRST_COMPLETED)
            else:  # others have filled it, and nobody says when they have done
                time.sleep(PAUSE)
            continue
        sent.future.add_done_callback(sent.end)
        return sent


def class_of(program: Any) -> Any:
    """The class of a program as its author wrote it: a bound one is of a class that was made for it."""
    return type(program).__base__ if isinstance(program, Program) else program


def _bound(program: Any, session: Session) -> Program:
    """The program that runs on *session* share."""
    bound: Program = session.attachment(program, lambda: program.bind(session))
    return bound


def _held(session: Session) -> tuple[Snapshot, Session]:
    """The values of *session*, and a fork with just these, in which nobody else sets any."""
    while True:
        snapshot, fork = session.snapshot(), session.fork()
        if session.revision == snapshot.revision:
            return snapshot, fork


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _bar(total: int) -> Any:
    """A bar on the terminal, to be called with the items so far."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    except ImportError:
        raise errors.missing_extra("Progress bars", "cli") from None
    from contextlib import contextmanager

    @contextmanager
    def shown() -> Iterator[Callable[[Sequence[Scored]], None]]:
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        console = Console(stderr=True)
        with Progress(
            *columns,
            console=console,
            transient=True,
            # What the program prints stands above the bar, unless stdout is somewhere else.
            redirect_stdout=sys.stdout.isatty(),
            disable=not console.is_terminal,
        ) as bar:
            task = bar.add_task("", total=total)

            def show(items: Sequence[Scored]) -> None:
                mean = sum(one.score for one in items) / len(items)
                bar.update(task, completed=len(items), description=f"score {mean:.3f}")

            yield show

    return shown()

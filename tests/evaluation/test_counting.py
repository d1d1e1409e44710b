"""What a run asks of language models, counted, and evaluations that say it."""

import copy
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from dspex import MissingExtra, PoolSaturated, Program, Session
from dspex.evaluation import Example, evaluate
from dspex.evaluation.meter import Meter, metered
from dspex.evaluation.results import Evaluation, Scored


class Echo(Program):
    def forward(self, x):
        return x


ROWS = [{"x": x} for x in range(3)]


def test_a_cost_is_known_where_every_call_told_its_own():
    meter = Meter()
    assert 0.0 == meter.cost
    for cost in (0.25, 0.5):
        meter.add_usage("openai/x", {"total_tokens": 10})
        meter.append({"cost": cost})
    assert (2, 20, 0.75) == (meter.calls, meter.tokens, meter.cost)
    meter.add_usage("openai/x", {"total_tokens": None})
    meter.append({"cost": None})
    assert (3, 20, None) == (meter.calls, meter.tokens, meter.cost)


def test_whoever_counted_before_counts_on():
    outer = Meter()
    inner = copy.deepcopy(Meter(outer))  # as DSPy does for each thread
    inner.add_usage("openai/x", {"total_tokens": 7})
    assert (1, 7) == (outer.calls, outer.tokens) == (inner.calls, inner.tokens)


def test_runs_inside_others_are_counted_in_both():
    dspy = pytest.importorskip("dspy")
    with metered() as outer, metered() as inner:
        assert inner is dspy.settings.usage_tracker
        dspy.settings.usage_tracker.add_usage("openai/x", {"total_tokens": 7})
    assert (1, 1) == (outer.calls, inner.calls)


def test_without_dspy_nothing_is_asked_of_a_model(monkeypatch):
    monkeypatch.delitem(sys.modules, "dspy", raising=False)
    with metered() as meter:
        assert meter is None
    found = evaluate(Echo, ROWS, lambda *_: 1.0)
    assert (0, 0, None) == (found.lm_calls, found.tokens, found.cost)


def test_an_evaluation_says_what_is_known_of_it():
    items = (Scored({"x": 1}, "a", 1.0, 0.5, lm_calls=2, cost=0.01), Scored({"x": 2}, "b", 1.0, 0.5))
    known = Evaluation("Echo", "s", "e:0", items[:1], 0.5, {})
    assert "1.000 (95 % 0.207 to 1.000) on 1 examples, 0.500 s each, 2 LM calls, $0.0100" == str(known)
    unknown = Evaluation("Echo", "s", "e:0", items, 1.0, {})
    assert "1.000 (95 % 0.342 to 1.000) on 2 examples, 0.500 s each, LM calls not counted" == str(unknown)


def test_a_progress_bar_changes_nothing_and_is_on_terminals_only(capsys, monkeypatch):
    pytest.importorskip("rich")
    found = [evaluate(Echo, ROWS, lambda _, pred: pred / 2, progress=one) for one in (True, False)]
    assert [[0.0, 0.5, 1.0]] * 2 == [[item.score for item in one.items] for one in found]
    assert ("", "") == capsys.readouterr()
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    evaluate(Echo, ROWS, lambda _, pred: pred / 2, progress=True)
    printed = capsys.readouterr()
    assert ("", True) == (printed.out, "score 0.500" in printed.err)


def test_without_rich_a_progress_bar_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with pytest.raises(MissingExtra, match=r"Progress bars .*dspex\[cli\]"):
        evaluate(Echo, ROWS, lambda *_: 1.0, progress=True)


class Elsewhere:
    """A pool that gives what *give* returns or raises for an item."""

    def __init__(self, give):
        self.give = give

    def submit(self, program, inputs, *, session, deadline, pin):
        future = Future()
        try:
            future.set_result(self.give(**inputs))
        except LookupError as error:
            future.set_exception(error)
        return future


def test_a_pool_may_give_outputs_or_runs_and_an_item_that_fails_there_is_a_failure():
    def give(x):
        if x == 1:
            raise LookupError("no machine")
        return Echo.record(x * 10) if x == 2 else x * 10

    found = evaluate(Echo, ROWS, lambda *_: 1.0, pool=Elsewhere(give), failure_score=-1.0)
    assert [0, None, 20] == [one.output for one in found.items]
    assert [None, "LookupError: no machine", None] == [one.error for one in found.items]
    assert [1.0, -1.0, 1.0] == [one.score for one in found.items]


class Narrow:
    """A pool with room for one call, which others may have taken."""

    def __init__(self, taken):
        self.refused, self.taken, self.threads = 0, taken, ThreadPoolExecutor(1)
        self.room = threading.Semaphore(1)

    def submit(self, program, inputs, *, session, deadline, pin):
        if self.refused < self.taken or not self.room.acquire(blocking=False):
            self.refused += 1
            raise PoolSaturated("the pool is full")
        future = self.threads.submit(program.run, **inputs)
        future.add_done_callback(lambda _: self.room.release())
        return future


@pytest.mark.parametrize("taken", [0, 3])
def test_a_pool_that_is_full_is_waited_for(taken):
    pool = Narrow(taken)
    with pool.threads:
        found = evaluate(Echo, ROWS, lambda *_: 1.0, pool=pool, num_threads=3)
    assert [0, 1, 2] == [one.output for one in found.items]
    assert 0 == found.failures
    assert pool.refused > taken - 1


def test_the_seconds_of_an_item_in_a_pool_end_with_its_answer():
    first, second = Future(), Future()

    class Ready:
        def submit(self, program, inputs, *, session, deadline, pin):
            if inputs["x"] == 0:
                return first
            threads.submit(work)
            return second

    def work():
        second.set_result(2)
        done = time.perf_counter()
        while time.perf_counter() < done + 0.1:
            pass
        first.set_result(1)

    with ThreadPoolExecutor(1) as threads:
        slow, fast = evaluate(Echo, ROWS[:2], lambda *_: 1.0, pool=Ready(), num_threads=2).items
    assert slow.seconds > 0.1
    assert fast.seconds < slow.seconds / 2


def test_what_nobody_counted_is_not_said_to_be_nothing():
    found = evaluate(Echo, ROWS, lambda *_: 1.0, pool=Elsewhere(lambda x: x))
    assert str(found).endswith(" s each, LM calls not counted")


def test_a_bound_program_is_evaluated_on_its_session():
    with Session("there") as session:
        assert "there" == evaluate(Echo.bind(session), ROWS, lambda *_: 1.0).session


def test_an_example_is_a_mapping_of_all_its_fields():
    one = Example({"question": "q", "answer": "a"}, ["question"])
    assert (2, {"question": "q", "answer": "a"}) == (len(one), dict(one))
    assert "Example({'question': 'q', 'answer': 'a'}, inputs=('question',))" == repr(one)


def test_a_metric_that_does_not_say_what_it_takes_is_given_everything():
    class Silent:
        __hash__ = None

        def __call__(self, gold, pred, trace):
            assert trace is None
            return 0.5

    class Odd:
        __signature__ = "none"

        def __call__(self, gold, pred, trace):
            return 0.25

    assert (0.5, 0.25) == tuple(evaluate(Echo, ROWS, one()).score for one in (Silent, Odd))

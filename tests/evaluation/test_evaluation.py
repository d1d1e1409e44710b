"""Running a program over a dataset."""

import json
import threading
from concurrent.futures import Future

import pytest

from dspex import Float, InvalidValue, MetricFailed, Program, Session, defvariable
from dspex.evaluation import Example, TokenF1, choice_accuracy, dataset, evaluate, exact_match, token_f1


class Echo(Program):
    k = defvariable(Float(min=0.0, max=9.0), initial=1.0)

    def forward(self, x):
        if x == 3:
            raise ValueError("three")
        return x * self.k


def metric(gold, pred, trace=None):
    return float(pred == gold.y)


ROWS = [{"x": x, "y": float(x)} for x in range(10)]


def test_the_mean_the_interval_the_items_and_the_failures():
    found = evaluate(Echo, ROWS, metric)
    assert 0.9 == found.score
    assert (0.596, 0.982) == tuple(round(end, 3) for end in found.interval)
    assert 1 == found.failures
    assert "ValueError: three" == found.items[3].error
    assert {"x": 3, "y": 3.0, "output": None, "score": 0.0, "error": "ValueError: three"}.items() <= (
        found.rows()[3].items()
    )
    assert str(found).startswith("0.900 (95 % 0.596 to 0.982) on 10 examples")
    assert {"k": 1.0} == dict(found.values)


def test_scores_between_have_students_interval():
    found = evaluate(Echo, ROWS, lambda gold, _: gold.x / 10, failure_score=0.3)
    assert pytest.approx((0.2334, 0.6666), abs=5e-4) == found.interval


def test_all_items_read_one_revision_however_the_session_goes_on():
    with Session() as session:
        Echo.bind(session)

        def meddle(gold, pred):
            session.set("k", 2.0)
            return metric(gold, pred)

        assert 0.9 == evaluate(Echo, ROWS, meddle, session=session).score
        assert 2.0 == session.get("k")


@pytest.mark.parametrize("num_threads", [1, 4])
def test_items_come_in_order_and_no_more_at_a_time_than_was_asked(num_threads):
    lock = threading.Lock()
    running, most = 0, 0

    class Counting(Program):
        def forward(self, x):
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            gate.wait(0.002)
            with lock:
                running -= 1
            return x

    gate = threading.Event()
    found = evaluate(Counting, [{"x": x} for x in range(20)], lambda _, pred: pred, num_threads=num_threads)
    assert list(range(20)) == [item.output for item in found.items]
    assert most <= num_threads


def test_an_item_that_takes_too_long_is_an_item_with_an_error():
    release = threading.Event()

    class Slow(Program):
        def forward(self, x):
            if x == 1:
                release.wait(30)
            return x

    found = evaluate(Slow, [{"x": 0}, {"x": 1}], lambda *_: 1.0, deadline=0.2)
    release.set()
    assert 0.5 == found.score
    assert found.items[1].error.startswith("DeadlineExceeded")


def test_items_may_run_elsewhere():
    sent = []

    class Elsewhere:
        def submit(self, program, inputs, *, session, deadline, pin):
            sent.append((program, dict(inputs), deadline))
            future = Future()
            future.set_result(program.run(**inputs, session=session, pin=pin))
            return future

    def meddle(gold, pred):
        session.set("k", 2.0)
        return metric(gold, pred)

    with Session("there") as session:
        Echo.bind(session)
        then = str(session.revision)
        found = evaluate(Echo, ROWS[:3], meddle, session=session, pool=Elsewhere(), deadline=5.0)
    assert (1.0, "there", then) == (found.score, found.session, found.revision)
    assert [(Echo, {"x": x}, 5.0) for x in range(3)] == sent
    assert found.lm_calls is None


@pytest.mark.parametrize(
    "wrong",
    [lambda *_: float("nan"), lambda *_: 1 / 0, lambda *_: "good", lambda *_: None],
)
def test_a_metric_that_gives_no_number_ends_the_evaluation(wrong):
    with pytest.raises(MetricFailed, match=r"metric .* must give a"):
        evaluate(Echo, ROWS, wrong)


def test_a_metric_may_return_a_prediction_with_a_score():
    class Said:
        score = 0.5
        feedback = "half"

    assert 0.5 == evaluate(Echo, ROWS[:2], lambda *_: Said()).score


@pytest.mark.parametrize("wrong", [0, -1, 1.5, True])
def test_num_threads_is_a_number_of_threads(wrong):
    with pytest.raises(InvalidValue, match="num_threads must be at least 1"):
        evaluate(Echo, ROWS, metric, num_threads=wrong)


# ---- datasets ------------------------------------------------------------------------------------


def test_a_dataset_may_be_a_file(tmp_path):
    rows = [{"x": 1, "y": 2}, {"x": 3, "y": 4}]
    jsonl, plain, csv = (tmp_path / name for name in ("a.jsonl", "a.json", "a.csv"))
    jsonl.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    plain.write_text(json.dumps(rows))
    csv.write_text("x,y\n1,2\n3,4\n")
    for path in (jsonl, plain, str(plain)):
        assert rows == [example.toDict() for example in dataset(path, program=Echo)]
    assert [{"x": "1"}, {"x": "3"}] == [example.inputs() for example in dataset(csv, program=Echo)]


def test_examples_of_dspy_are_taken_as_they_are():
    dspy = pytest.importorskip("dspy")
    one = dspy.Example(question="q", answer="a").with_inputs("question")
    bare = dspy.Example(x=1, y=2)
    assert one is dataset([one], program=Echo)[0]
    assert {"x": 1} == dataset([bare], program=Echo)[0].inputs()


def test_what_is_wrong_with_a_dataset_is_said(tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"x": 1}\n{"x": \n')
    mapping = tmp_path / "mapping.json"
    mapping.write_text('{"x": 1}')
    for source, sentence in (
        (mapping, r"the dataset must be well-formed json \(not a list\)"),
        ([], "the dataset must be at least one example"),
        ([{"z": 1}], "example 0 of the dataset must be a mapping with the inputs 'x'"),
        ([7], "example 0 of the dataset must be a mapping of fields"),
        (broken, r"the dataset must be well-formed jsonl \(line 2"),
        (tmp_path / "none.jsonl", "the dataset must be a file that can be read"),
        ("a.xlsx", "the dataset must be a file that ends with .jsonl, .json, .csv"),
        (7, "the dataset must be a path, or a list of examples"),
    ):
        with pytest.raises(InvalidValue, match=sentence):
            dataset(source, program=Echo)
    with pytest.raises(InvalidValue, match="example 0 of the dataset must be given with inputs="):
        dataset([{"x": 1}], program=object())


def test_an_example_reads_as_a_mapping_and_by_attributes():
    one = Example({"question": "q", "answer": "a"}, ["question"])
    assert ("q", "a", {"question": "q"}) == (one["question"], one.answer, one.inputs())
    with pytest.raises(AttributeError, match="has no field 'x'"):
        _ = one.x


# ---- metrics -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "given", "exact", "f1"),
    [
        ("The Eiffel Tower", "eiffel tower.", 1.0, 1.0),
        ("Eiffel Tower", "the tower in Paris", 0.0, 0.4),
        (["Paris", "City of Light"], "paris", 1.0, 1.0),
        ("Paris", "", 0.0, 0.0),
    ],
)
def test_the_ready_metrics(wanted, given, exact, f1):
    gold = Example({"answer": wanted}, [])
    assert exact == exact_match(gold, given) == exact_match(gold, {"answer": given})
    assert f1 == pytest.approx(token_f1(gold, given)) == TokenF1("answer")(gold, given)


def test_a_choice_is_right_or_wrong():
    gold = Example({"label": "Sports"}, [])
    assert (1.0, 0.0) == (choice_accuracy(gold, " sports\n"), choice_accuracy(gold, "sport"))

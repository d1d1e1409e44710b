"""What is made of what DSPy's optimizers find, where it fits only in part."""

import pytest

from dspex import Demos, Float, InvalidValue, Program, Session, Text, defprogram, defvariable
from dspex.evaluation import exact_match
from dspex.modules import Predict
from dspex.optimizers import DSPyOptimizer, as_dspy_module
from dspex.optimizers.proposals import labelled

dspy = pytest.importorskip("dspy")


class Adder(Program):
    task = defvariable(Text(max_length=40), initial="Add.")
    demos = defvariable(Demos(fields=("question", "answer"), max_items=4), initial=[])

    def init(self):
        self.ask = Predict("question -> answer", demos=Adder.demos, instructions=Adder.task)

    def forward(self, question):
        return self.ask(question=question).answer


ROWS = [{"question": f"{a}+{b}", "answer": str(a + b)} for a in range(1, 5) for b in range(1, 3)]


class Finding(dspy.teleprompt.Teleprompter):
    """An optimizer of the user's own, which finds these demos and instructions."""

    def __init__(self, demos=(), instructions=None, others=()):
        self.demos, self.instructions, self.others = demos, instructions, others

    def compile(self, student, *, trainset):
        found = student.deepcopy()
        (predictor,) = found.predictors()
        predictor.demos = [dspy.Example(**demo) for demo in self.demos]
        if self.instructions is not None:
            predictor.signature = predictor.signature.with_instructions(self.instructions)
        found.candidate_programs = self.others
        return found


@pytest.fixture
def live(pupil):
    with Session("adder", source="tests") as session:
        Adder.bind(session)
        yield session


def compiled(session, *arguments, **options):
    optimizer = DSPyOptimizer(exact_match, *arguments, **{"storage": None, **options})
    return optimizer.compile(Adder, trainset=ROWS, session=session)


def test_of_too_many_demos_the_first_are_tried(live):
    study = compiled(live, Finding(ROWS[:6]))
    assert "DSPy found 6 demos for demos, which takes 4: the first ones" in study.notes
    assert ROWS[:4] == [dict(demo) for demo in live.get("demos")]


def test_what_a_variable_cannot_be_is_noted_and_the_rest_is_tried(live):
    study = compiled(live, Finding(ROWS[:2], "Add. " * 20))
    (note,) = study.notes
    assert note.startswith("DSPy found something for task that it cannot be: ")
    assert ("Add.", 2, 1.0) == (live.get("task"), len(live.get("demos")), study.best.score)


def test_programs_that_an_optimizer_keeps_otherwise_are_left_out(live):
    student = as_dspy_module(Adder, live)
    student.predictors()[0].demos = [dspy.Example(**row) for row in ROWS[:3]]
    study = compiled(live, Finding(ROWS[:1], others=[{"program": "its name"}, {"program": student}]))
    assert [0, 1, 3] == [len(trial.point["demos"]) for trial in study.trials]


def test_an_optimizer_that_is_none_is_refused_with_those_that_are(live):
    with pytest.raises(InvalidValue, match="teleprompter must be one of 'BootstrapFewShot'") as refused:
        compiled(live, "Bootstrap")
    assert "(got 'Bootstrap')" in str(refused.value)


def test_each_trial_is_told_and_the_budget_ends_them(live):
    told = []
    study = compiled(live, Finding(ROWS[:2]), on_trial=told.append)
    assert list(study.trials) == told
    assert [True, False] == [trial.baseline for trial in told]
    live.set("demos", [])
    study = compiled(live, Finding(ROWS[:3]), lm_calls=len(ROWS) + 2)
    assert ["complete", "failed"] == [trial.state for trial in study.trials]
    assert ("the budget was spent before all that was to be tried had been tried",) == study.notes


@pytest.fixture
def gepa(live, pupil, monkeypatch):
    """Run GEPA with a metric; all that the model was asked."""
    asked, complete = [], pupil.complete

    def kept(request):
        asked.append("\n".join(message.text for message in request.messages))
        return complete(request)

    def run(metric):
        settings = {"max_metric_calls": 12, "num_threads": 1}
        optimizer = DSPyOptimizer(metric, "GEPA", settings=settings, storage=None)
        optimizer.compile(Adder, trainset=ROWS[:4], session=live)
        return asked

    monkeypatch.setattr(pupil, "complete", kept)
    return run


def test_gepa_is_told_what_a_metric_says_that_knows_how(gepa):
    def metric(gold, pred, trace=None, pred_name=None, pred_trace=None):
        return dspy.Prediction(score=float(gold.answer == pred), feedback="CANARY of the metric")

    assert any("CANARY of the metric" in prompt for prompt in gepa(metric))


def test_gepa_is_told_the_score_and_what_was_expected_of_any_other_metric(gepa):
    wanted = "It scored 0. Expected were {'answer': '2'}."
    assert any(wanted in prompt for prompt in gepa(exact_match))


def test_a_bound_program_is_a_module_with_the_values_of_its_session(live):
    live.set("demos", ROWS[:2])
    assert ROWS[:2] == [demo.toDict() for demo in as_dspy_module(Adder.bind(live)).predictors()[0].demos]


def test_a_student_runs_steps_of_programs_inside(pupil):
    class Outer(Program):
        adder = defprogram(Adder)

        def forward(self, question):
            return self.adder(question)

    with Session() as session:
        session.attachment(Outer, lambda: Outer.bind(session))
        student = as_dspy_module(Outer, session)
        assert "0" == student(question="2+3")
        able = student.deepcopy()
        able.predictors()[0].demos = [dspy.Example(**row) for row in ROWS[:2]]
        assert "5" == able(question="2+3")


def test_sets_of_demos_are_each_once_and_no_larger_than_there_are_examples():
    kind = Demos(fields=("question", "answer"), max_items=2)
    rows = [*ROWS[:2], {"question": "no answer"}]
    sets = labelled(kind, rows, 12, [1, 2, 3], seed=1)
    assert {1, 2} == set(map(len, sets))
    assert all(sets.count(one) == 1 for one in sets)
    assert all(demo in ROWS[:2] for one in sets for demo in one)
    assert [] == labelled(kind, [{"question": "no answer"}], 3, [1], seed=1)
    assert [] == labelled(Float(), ROWS, 3, [1], seed=1)

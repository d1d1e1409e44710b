"""DSPy's optimizers on a program, and prompts and demos in one study with numbers."""

import inspect

import pytest
from study_tools import TRAIN, VAL, Adder

from dspex import (
    Float,
    InvalidDeclaration,
    Program,
    Session,
    Text,
    VariableConflict,
    defprogram,
    defvariable,
)
from dspex.evaluation import evaluate, exact_match
from dspex.modules import Predict
from dspex.optimizers import DSPyOptimizer, JointOptimizer, OptunaOptimizer, as_dspy_module

dspy = pytest.importorskip("dspy")


def prompts(metric, *arguments, **options):
    return DSPyOptimizer(metric, *arguments, **{"storage": None, **options})


@pytest.fixture
def live(pupil):
    with Session("adder", source="tests") as session:
        Adder.bind(session)
        yield session


def test_a_program_is_a_dspy_module_with_its_chosen_steps(live):
    student = as_dspy_module(Adder, live)
    assert ["steps['plain']"] == [name for name, _ in student.named_predictors()]
    live.set("strategy", "thinking")
    assert ["steps['thinking'].predict"] == [
        name for name, _ in as_dspy_module(Adder, live).named_predictors()
    ]


def test_a_student_says_what_the_program_says_and_has_its_texts(live, pupil):
    live.update({"demos": TRAIN[:2], "task": "Sum up."})
    student = as_dspy_module(Adder, live)
    (predictor,) = student.predictors()
    assert "Sum up." == predictor.signature.instructions
    assert TRAIN[:2] == [demo.toDict() for demo in predictor.demos]
    assert "5" == student(question="2+3")
    live.set("temperature", 1.0)
    assert "5" == student(question="2+3")
    assert "0" == as_dspy_module(Adder, live)(question="2+3")


def test_a_copy_of_a_student_has_texts_of_its_own(live):
    student = as_dspy_module(Adder, live)
    able = student.deepcopy()
    able.predictors()[0].demos = [dspy.Example(**row) for row in TRAIN[:2]]
    assert ("0", "5") == (student(question="2+3"), able(question="2+3"))


def test_steps_of_programs_inside_are_steps_too(pupil):
    class Outer(Program):
        adder = defprogram(Adder)

        def forward(self, question):
            return self.adder(question)

    with Session() as session:
        Outer.bind(session)
        study = prompts(exact_match, settings={"max_bootstrapped_demos": 0}).compile(
            Outer, trainset=TRAIN, valset=VAL, session=session
        )
        assert 1.0 == study.best.score
        assert 4 == len(session.get("adder.demos"))


@pytest.mark.parametrize(
    ("teleprompter", "settings", "compiling"),
    [
        ("BootstrapFewShot", {"max_bootstrapped_demos": 0, "max_labeled_demos": 4}, {}),
        (
            "BootstrapFewShotWithRandomSearch",
            {
                "num_candidate_programs": 1,
                "num_threads": 1,
                "max_labeled_demos": 4,
                "max_bootstrapped_demos": 2,
            },
            {},
        ),
        (
            "MIPROv2",
            {"auto": None, "num_candidates": 3, "num_threads": 1, "max_labeled_demos": 4},
            {"num_trials": 4, "minibatch": False, "program_aware_proposer": False},
        ),
    ],
)
def test_what_dspy_finds_is_live_versioned_and_revertible(live, teleprompter, settings, compiling):
    study = prompts(exact_match, teleprompter, settings=settings, compiling=compiling).compile(
        Adder, trainset=TRAIN, valset=VAL, session=live
    )
    assert (0.0, 1.0) == (study.baseline.score, study.best.score)
    assert 1.0 == evaluate(Adder, VAL, exact_match, session=live).score
    assert 1 == live.record("demos").version
    assert study.name == live.record("demos").metadata["study"]
    assert study.lm_calls > 0
    study.rollback()
    assert () == live.get("demos")


def test_a_program_that_mostly_fails_is_improved_all_the_same(live):
    class Shy(Adder):
        def forward(self, question):
            answer = super().forward(question)
            if answer == "0":
                raise ValueError("show me how")
            return answer

    few = {"num_candidate_programs": 1, "num_threads": 1}
    study = DSPyOptimizer(exact_match, "BootstrapFewShotWithRandomSearch", settings=few).compile(
        Shy, trainset=TRAIN, valset=2 * VAL, session=live
    )
    assert (0.0, 1.0) == (study.baseline.score, study.best.score)


def test_copro_finds_instructions(live):
    study = prompts(exact_match, "COPRO", settings={"breadth": 2, "depth": 1}).compile(
        Adder, trainset=TRAIN[:4], valset=VAL[:4], session=live
    )
    assert [{"task", "demos"} >= set(trial.point) for trial in study.trials]
    assert "Add." == live.get("task")  # no better, so nothing was committed


def test_simba_and_gepa_run_on_a_program(live):
    live.update({"demos": TRAIN[:2]})
    simba = DSPyOptimizer(
        exact_match, "SIMBA", settings={"bsize": 4, "num_candidates": 2, "max_steps": 1, "num_threads": 1}
    ).compile(Adder, trainset=TRAIN, valset=VAL, session=live)
    gepa = prompts(exact_match, "GEPA", settings={"max_metric_calls": 12, "num_threads": 1}).compile(
        Adder, trainset=TRAIN, valset=VAL, session=live
    )
    for study in (simba, gepa):
        assert 1.0 == study.baseline.score == study.best.score


def test_what_no_variable_takes_is_said(pupil):
    class Silent(Program):
        task = defvariable(Text(), initial="Add.")

        def init(self):
            self.ask = Predict("question -> answer", instructions=Silent.task)

        def forward(self, question):
            return self.ask(question=question).answer

    with Session() as session:
        study = prompts(exact_match).compile(Silent, trainset=TRAIN, session=session)
    assert "DSPy found demos for ask" in study.notes[0]


def test_a_program_without_prompts_has_nothing_for_dspy(pupil):
    class Deaf(Program):
        temperature = defvariable(Float(min=0.0, max=1.0), initial=0.0)

        def init(self):
            self.ask = Predict("question -> answer", temperature=Deaf.temperature)

        def forward(self, question):
            return self.ask(question=question).answer

    with pytest.raises(InvalidDeclaration, match="Deaf has no variable for what DSPy finds"):
        prompts(exact_match).compile(Deaf, trainset=TRAIN)


def test_only_both_together_find_what_needs_both(live):
    """The model adds only when it is cold and shown how; it starts hot and is shown nothing."""
    live.set("temperature", 1.0)
    common = {"commit": False}
    numbers = OptunaOptimizer(exact_match, trials=15, storage=None, **common)
    texts = prompts(exact_match, **common)
    joint = JointOptimizer(exact_match, trials=15, storage=None, demo_sets=2, **common)
    found = [
        one.compile(Adder, trainset=TRAIN, valset=VAL, session=live).best.score
        for one in (numbers, texts, joint)
    ]
    assert [0.0, 0.0, 1.0] == found


def test_making_candidates_counts_in_the_budget(live, pupil):
    study = JointOptimizer(exact_match, trials=500, storage=None, lm_calls=60, demo_sets=2).compile(
        Adder, trainset=TRAIN, valset=VAL, session=live
    )
    assert pupil.calls == study.lm_calls == 60
    assert 1.0 == study.best.score


def test_lm_calls_and_tokens_are_counted_for_each_item(live):
    found = evaluate(Adder, VAL, exact_match, session=live, num_threads=4)
    assert len(VAL) == found.lm_calls
    assert 12 * len(VAL) == found.tokens
    assert found.cost is None
    assert {1} == {item.lm_calls for item in found.items}


class Restless(dspy.teleprompt.Teleprompter):
    """Finds something else each time."""

    times = 0

    def compile(self, student, *, trainset):
        Restless.times += 1
        found = student.deepcopy()
        for _, predictor in found.named_predictors():
            predictor.demos = [dspy.Example(question=f"{self.times}+1", answer=f"{self.times + 1}")] * 2
        return found


def test_a_joint_study_goes_on_with_the_candidates_that_it_began_with(live, file):
    Restless.times = 0
    asked = {"teleprompters": [Restless()], "storage": file, "study": "joint"}

    def joint(**options):
        optimizer = JointOptimizer(exact_match, **asked, **options)
        return optimizer.compile(Adder, trainset=TRAIN, valset=VAL, session=live)

    first, second = joint(trials=4), joint(trials=8)
    assert 1 == Restless.times
    assert first.receipt is not None  # what there is now is one of the candidates
    assert first.space.describe() == second.space.describe()
    assert [one.shown for one in first.trials] == [one.shown for one in second.trials[: len(first.trials)]]
    assert ("the candidates for 'task', 'demos' are those that the study began with",) == second.notes
    with pytest.raises(VariableConflict, match="'demos' is declared differently"):
        joint(trials=9, candidates={"demos": [[{"question": "1+1", "answer": "2"}]]})


@pytest.mark.parametrize("teleprompter", ["MIPROv2", "SIMBA"])
def test_the_seed_is_dspys_as_well(live, monkeypatch, teleprompter):
    seen = []
    cls = getattr(dspy, teleprompter)
    compiling = cls.compile

    def compile_(self, *arguments, seed=None, **options):
        seen.append(self.seed if hasattr(self, "seed") else seed)
        raise InterruptedError

    compile_.__signature__ = inspect.signature(compiling)
    monkeypatch.setattr(cls, "compile", compile_)
    with pytest.raises(InterruptedError):
        prompts(exact_match, teleprompter, seed=7).compile(Adder, trainset=TRAIN, session=live)
    assert [7] == seen


def test_dspy_is_not_asked_to_give_up_trials():
    with pytest.raises(TypeError, match="screen"):
        prompts(exact_match, screen=8)

"""What is wrong with a search is said, and whatever it is, the session is as it was."""

import threading

import pytest
from study_tools import KINDS, TRAIN, Adder, Diary, made

from dspex import (
    Claimed,
    Demos,
    Float,
    InvalidDeclaration,
    InvalidValue,
    LimitExceeded,
    MetricFailed,
    Program,
    RuleBroken,
    Session,
    StoreUnavailable,
    UnknownVariable,
    VariableConflict,
    defvariable,
    rule,
)
from dspex.modules import Predict
from dspex.optimizers import Bandit, OptunaOptimizer


@pytest.fixture
def asked(pupil, tmp_path):
    """Compile a program on a session with an optimizer of each kind; `asked("joint", session, metric=…)`."""

    def compiled(kind, session, program=Adder, trainset=TRAIN, **options):
        optimizer = made(kind, Diary(tmp_path / "diary"), **{"storage": None, **options})
        return optimizer.compile(program, trainset=trainset, valset=None, session=session)

    return compiled


@pytest.fixture
def adder():
    """A session with the values of one program, and a rule that anything else could break."""
    with Session("adder", source="tests") as session:
        Adder.bind(session)
        yield session


class Untuned(Program):
    """What optimizers could set is for nobody to tune, or can be anything."""

    free = defvariable(Float(), initial=0.0)
    fixed = defvariable(Float(min=0.0, max=1.0), initial=0.0, tunable=False)
    demos = defvariable(Demos(fields=("question", "answer")), initial=[], tunable=False)

    def init(self):
        self.ask = Predict("question -> answer", demos=Untuned.demos)

    def forward(self, question):
        return self.ask(question=question).answer


def _raises(*_):
    raise ZeroDivisionError


def _nothing_new(session):
    """What a refused search may leave behind: only declarations."""
    return session.revision, dict(session.snapshot()), list(session.history())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"trainset": []}, (InvalidValue, "the dataset must be at least one example")),
        ({"metric": _raises}, (MetricFailed, "it raised ZeroDivisionError")),
        ({"metric": lambda *_: float("nan")}, (MetricFailed, "must give a finite number")),
        ({"storage": "sqlite:////no/such/folder/x.db"}, (StoreUnavailable, "the study storage .* cannot be")),
    ],
)
def test_bad_input_is_a_typed_error_and_leaves_the_session(asked, adder, kind, options, refused):
    error, sentence = refused
    before = _nothing_new(adder)
    with pytest.raises(error, match=sentence):
        asked(kind, adder, **options)
    assert before == _nothing_new(adder)
    adder.set("task", "Sum.")  # nobody claims it


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("optuna", "Untuned has nothing to tune. free: it has no min and max"),
        ("dspy", "Untuned has no variable for what DSPy finds"),
        ("joint", "Untuned has no variable for what DSPy finds"),
    ],
)
def test_a_program_with_nothing_to_tune_is_refused(asked, kind, sentence):
    with Session() as session:
        Untuned.bind(session)
        before = _nothing_new(session)
        with pytest.raises(InvalidDeclaration, match=sentence):
            asked(kind, session, program=Untuned)
        assert before == _nothing_new(session)


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_another_study_has_claimed_are_not_searched(asked, adder, together, kind):
    with (
        adder.claim(["demos", "temperature"], owner="study-other", ttl=60),
        Session("adder") as other,
        pytest.raises(Claimed, match="study-other"),
    ):
        together(lambda: asked(kind, other))  # in a thread, where no claim is active


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_of_another_space_is_refused(asked, file, kind):
    class Other(Adder):
        temperature = defvariable(Float(min=0.0, max=0.5), initial=0.0)
        demos = defvariable(Demos(fields=("question", "answer"), max_items=4), initial=TRAIN[4:6])

    Other.__name__ = "Adder"
    with Session() as session:
        asked(kind, session, storage=file)
    with Session() as session:
        Other.bind(session)
        before = _nothing_new(session)
        with pytest.raises(VariableConflict, match="study 'ended' was made for another space: '"):
            asked(kind, session, program=Other, storage=file)
        assert before == _nothing_new(session)


# ---- rules ---------------------------------------------------------------------------------------


class Hopeless(Program):
    x = defvariable(Float(min=0.0, max=1.0), initial=0.0)

    def forward(self, question):
        return self.x

    @rule
    def zero(self):
        return None if self.x == 0.0 else "x must be 0"


class Speechless(Adder):
    @rule
    def nothing_else(self):
        return None if not self.demos and self.temperature == 0.0 else "nothing must be shown"


def test_rules_that_refuse_everything_end_the_search_and_say_so(asked):
    with Session() as session:
        study = asked("optuna", session, program=Hopeless, metric=lambda *_: 0.5)
        assert "100 candidates in a row were refused or tried before" in study.notes[-1]
        assert ({"x": 0.0}, None) == (dict(session.snapshot()), study.receipt)


@pytest.mark.parametrize("kind", ["dspy", "joint"])
def test_so_do_rules_that_refuse_all_that_dspy_finds(asked, kind):
    with Session() as session:
        study = asked(kind, session, program=Speechless)
        assert {0} == {len(trial.point["demos"]) for trial in study.trials if trial.state == "complete"}
        assert {"nothing must be shown"} == {
            trial.error for trial in study.trials if trial.state == "refused"
        }
        assert any("refused" in note or "a rule is against something" in note for note in study.notes)
        assert () == session.get("demos")


@pytest.mark.parametrize("kind", KINDS)
def test_where_rules_refuse_what_is_there_as_well_it_is_an_error(asked, kind):
    class Never(Adder):
        closed = defvariable(bool, initial=False, tunable=False)

        @rule
        def never(self):
            return "it is closed" if self.closed else None

    with Session() as session:
        session.register("closed", bool, initial=True)  # by somebody who does not know the rule
        with pytest.raises(LimitExceeded, match=r"the rules of Never refused .* it is closed"):
            asked(kind, session, program=Never)
        assert 0 == session.revision.rev


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"trials": 0}, "trials must be at least 1"),
        ({"parallel": 0}, "parallel must be at least 1"),
        ({"num_threads": 0}, "num_threads must be at least 1"),
        ({"deadline": 0}, "deadline must be more than 0"),
        ({"choose": "score"}, "choose must be a function"),
        ({"screen": True}, "screen must be at least 1"),
        ({"sampler": "bayes"}, "sampler must be a sampler of Optuna or one of 'tpe'"),
        ({"objectives": ("speed",)}, "objectives must be some of 'score', 'seconds'"),
        ({"objectives": ("score", "seconds")}, "say which to take with choose="),
        ({"seconds": 0}, "seconds must be more than 0"),
        ({"on_new_space": "forget"}, "on_new_space must be one of 'refuse', 'map'"),
        ({"lm_calls": 9, "pool": threading}, "lm_calls cannot be counted in a pool"),
    ],
)
def test_options_that_cannot_be_are_refused(said, options, sentence):
    with pytest.raises((InvalidValue, InvalidDeclaration), match=sentence):
        OptunaOptimizer(said, **options)


# ---- choosing while it runs ----------------------------------------------------------------------


def test_a_bandit_refuses_what_cannot_be_and_leaves_the_session(live, state, together):
    before = state(live)
    with pytest.raises(UnknownVariable, match="Did you mean 'style'"):
        Bandit(live, "stile")
    with pytest.raises(InvalidValue, match="two choices or more"):
        Bandit(live, labels=[])
    with pytest.raises(InvalidValue, match="style must be"):
        Bandit(live, "style", values=["brief", "rude"])
    assert before == state(live)


def test_a_bandit_learns_from_numbers_only(live, tuned, state):
    before = state(live)
    with Bandit(live, "style") as bandit:
        run = bandit.run(tuned, 1)
        with pytest.raises(InvalidValue, match="score must be a finite number"):
            live.feedback(run, float("nan"))
        assert [0, 0] == [arm.count for arm in bandit.arms]
    assert before == state(live)


def test_a_bandit_does_not_try_what_a_rule_is_against(live, state):
    live.set("temperature", 1.4)
    before = state(live)
    with pytest.raises(RuleBroken, match="brief must not be hot"):
        Bandit(live, "style")
    assert before == state(live)


def test_a_bandit_does_not_promote_what_a_study_has_claimed(live, state, together):
    with Bandit(live, "style") as bandit, live.claim(["style"], owner="study-other", ttl=60):
        before = state(live)
        with pytest.raises(Claimed, match="study-other"):
            together(bandit.promote)  # in a thread, where no claim is active
        assert before == state(live)

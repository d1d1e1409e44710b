"""Searching with Optuna on a live session."""

import subprocess
import sys
import threading
from pathlib import Path

import optuna
import pytest

import dspex
from dspex import (
    Claimed,
    Float,
    InvalidDeclaration,
    InvalidValue,
    MetricFailed,
    Program,
    Session,
    StoreUnavailable,
    VariableConflict,
    defvariable,
    rule,
)
from dspex.optimizers import OptunaOptimizer


def search(metric, **options):
    return OptunaOptimizer(metric, **{"trials": 12, "storage": None, **options})


# ---- what a search does --------------------------------------------------------------------------


def test_the_winner_is_committed_with_where_it_came_from_and_can_be_taken_back(live, tuned, rows, said):
    before = live.snapshot()
    study = search(said, study="first", trials=25).compile(tuned, trainset=rows, session=live)
    record = live.record("temperature")
    assert study.best.point["temperature"] == record.value == live.get("temperature")
    assert study.best.score > study.baseline.score == pytest.approx(0.6)
    assert "study first" == record.source
    assert {"study": "first", "trial": study.best.number, "score": study.best.score}.items() <= dict(
        record.metadata
    ).items()
    assert 1 == live.revision.rev
    study.rollback()
    assert dict(before) == dict(live.snapshot())


def test_the_first_trial_is_what_the_session_has(live, tuned, rows, said):
    live.set("temperature", 1.1)
    study = search(said, trials=3).compile(tuned, trainset=rows, session=live)
    assert study.trials[0].baseline
    assert 1.1 == study.trials[0].point["temperature"]


def test_points_to_try_first_are_tried_first(live, tuned, rows, said):
    first = [{"temperature": 0.3, "style": "brief"}, {"grade": 3}]
    study = search(said, trials=3, first=first).compile(tuned, trainset=rows, session=live)
    assert {"temperature": 0.3, "style": "brief", "grade": 2} == dict(study.trials[1].point)
    assert (0.7, 3) == (study.trials[2].point["temperature"], study.trials[2].point["grade"])


def test_what_does_not_matter_is_in_no_trial(live, tuned, rows, said):
    study = search(said, trials=20).compile(tuned, trainset=rows, session=live)
    for trial in study.trials:
        assert ("words" in trial.point) == (trial.point["style"] == "chatty")


def test_what_a_rule_refuses_is_never_run(said):
    seen = []

    class Careful(Program):
        x = defvariable(Float(min=0.0, max=1.0), initial=0.2)

        def forward(self, q):
            seen.append(self.x)
            return self.x

        @rule
        def low(self):
            return "x must be below 0.5" if self.x >= 0.5 else None

    with Session() as session:
        study = search(said, trials=15).compile(Careful, trainset=_examples(), session=session)
    assert max(seen) < 0.5
    refused = [trial for trial in study.trials if trial.state == "refused"]
    assert refused
    assert {"x must be below 0.5"} == {trial.error for trial in refused}


def _examples():
    from dspex.evaluation import Example

    return [Example({"q": 1}, ["q"])]


def test_nothing_is_committed_when_nothing_is_better(live, tuned, rows):
    study = search(lambda *_: 0.5).compile(tuned, trainset=rows, session=live)
    assert study.receipt is None
    assert 0 == live.revision.rev


def test_a_search_may_keep_its_findings_to_itself(live, tuned, rows, said):
    study = search(said, commit=False).compile(tuned, trainset=rows, session=live)
    assert study.best.score > study.baseline.score
    assert (None, 0) == (study.receipt, live.revision.rev)


def test_the_live_session_keeps_its_values_while_trials_run(live, tuned, rows):
    seen = set()

    def metric(gold, pred):
        seen.add((live.get("temperature"), live.get("style")))
        return pred

    search(metric).compile(tuned, trainset=rows, session=live)
    assert {(0.7, "chatty")} == seen


def test_others_are_kept_off_what_is_tuned_and_off_nothing_else(live, tuned, rows):
    live.register("note", str, initial="")
    refused = []

    def metric(gold, pred):
        live_again = Session("live")
        live_again.set("note", "x")
        with live_again:
            try:
                in_thread(lambda: live_again.set("temperature", 1.0))
            except Claimed as error:
                refused.append(str(error))
        return pred

    search(metric, trials=2).compile(tuned, trainset=rows[:1], session=live)
    assert "study-Tuned" in refused[0]


def in_thread(call):
    """*call* made where no claim is active."""
    raised = []

    def work():
        try:
            call()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    if raised:
        raise raised[0]


def test_a_clearly_worse_trial_is_given_up_after_a_small_sample(live, tuned, rows):
    def metric(gold, pred):
        return float(pred > 0.6)

    study = search(metric, trials=20, screen=4, seed=3).compile(tuned, trainset=rows, session=live)
    given_up = [trial for trial in study.trials if trial.state == "screened" and not trial.baseline]
    assert given_up
    assert max(trial.items for trial in given_up) < len(rows)
    assert 1.0 == study.best.score
    assert len(rows) == study.best.items


def test_a_baseline_that_may_be_the_best_is_looked_at_in_full(live, tuned, rows):
    study = search(lambda *_: 0.5, trials=4, screen=4).compile(tuned, trainset=rows, session=live)
    assert ("complete", len(rows)) == (study.baseline.state, study.baseline.items)


def test_parallel_trials_do_not_see_one_another(rows):
    mixed, lock = [], threading.Lock()

    class Seeing(Program):
        a = defvariable(Float(min=0.0, max=1.0), initial=0.5)
        b = defvariable(Float(min=0.0, max=1.0), initial=0.5)

        def forward(self, x):
            first = self.a, self.b
            threading.Event().wait(0.0001)
            with lock:
                mixed.append((self.session.id, first, (self.a, self.b)))
            return 0.5

    with Session() as session:
        study = search(lambda _, pred: pred, trials=40, parallel=8, sampler="random").compile(
            Seeing, trainset=rows, session=session
        )
        assert (0.5, 0.5) == (session.get("a"), session.get("b"))
    points = {(trial.point["a"], trial.point["b"]) for trial in study.trials}
    by_fork = {}
    for fork, first, last in mixed:
        assert first == last
        by_fork.setdefault(fork, set()).add(first)
    assert 40 * len(rows) == len(mixed)
    assert all(len(values) == 1 and values <= points for values in by_fork.values())


def test_a_budget_ends_the_search(live, tuned, rows, said):
    study = search(said, trials=1_000_000, seconds=0.3).compile(tuned, trainset=rows, session=live)
    assert study.seconds < 5
    assert len(study.trials) < 100_000


def test_a_small_space_ends_the_search_when_it_is_known(rows):
    class Small(Program):
        x = defvariable(bool, initial=False)

        def forward(self, q):
            return float(self.x)

    with Session() as session:
        study = search(lambda _, pred: pred, trials=50).compile(Small, trainset=_examples(), session=session)
        assert session.get("x") is True
    assert "the search ended early" in study.notes[-1]


def test_the_grid_is_every_point_once(live, tuned, rows, said):
    study = search(said, sampler="grid", grid_points=2, trials=1000).compile(
        tuned, trainset=rows[:1], session=live
    )
    wanted = [tuned.search_space().encode(point) for point in tuned.search_space().grid(2)]
    tried = [dict(trial.shown) for trial in study.trials if not trial.baseline]
    assert sorted(map(repr, wanted)) == sorted(map(repr, tried))


def test_several_objectives_give_the_pareto_set_and_the_rule_picks(live, tuned, rows):
    class Traded(Program):
        effort = defvariable(Float(min=0.0, max=1.0), initial=0.5)

        def forward(self, x):
            threading.Event().wait(self.effort / 500)
            return self.effort

    given = []

    def fastest(trials):
        given.extend(trials)
        return min(trials, key=lambda trial: trial.seconds)

    with Session() as session:
        study = search(
            lambda _, pred: pred, trials=12, objectives=("score", "seconds"), choose=fastest
        ).compile(Traded, trainset=rows[:2], session=session)
    assert list(study.pareto) == given
    assert min(trial.seconds for trial in study.trials) == study.best.seconds
    for one in study.pareto:
        assert not any(other.score >= one.score and other.seconds < one.seconds for other in study.trials)


# ---- going on ------------------------------------------------------------------------------------


def test_a_study_goes_on_where_it_was(live, tuned, rows, said, file):
    options = {"study": "long", "storage": file}
    first = search(said, trials=4, **options).compile(tuned, trainset=rows, session=live)
    second = search(said, trials=9, **options).compile(tuned, trainset=rows, session=live)
    known = [(trial.number, trial.point) for trial in first.trials]
    assert known == [(trial.number, trial.point) for trial in second.trials[: len(known)]]
    assert len(second.trials) >= 9


KILLED = """
import os, sys
from conftest import Tuned
from dspex import Session
from dspex.optimizers import OptunaOptimizer

runs = 0
def metric(gold, pred):
    global runs
    runs += 1
    if runs == 50:
        os.kill(os.getpid(), 9)
    return pred

with Session("killed", store=sys.argv[1]) as session:
    OptunaOptimizer(metric, trials=6, study="killed", storage=sys.argv[2]).compile(
        Tuned, trainset=[{"x": x} for x in range(20)], session=session)
"""


def test_a_killed_study_goes_on_and_tries_again_what_it_was_at(tmp_path, tuned, said, file):
    rows = [{"x": x} for x in range(20)]
    store = f"sqlite:///{tmp_path}/agent.db"
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    here = str(Path(__file__).parent)
    where = {"PYTHONPATH": f"{Path(dspex.__file__).parents[1]}:{here}", "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, script, store, file], env=where, timeout=100, check=False)
    assert -9 == done.returncode
    left = optuna.load_study(study_name="killed", storage=file).trials
    assert optuna.trial.TrialState.RUNNING == left[2].state
    with Session("killed", store=store) as session:
        session_before = dict(session.snapshot())
        tuned.bind(session)
        assert 0.7 == session.get("temperature") == session_before.get("temperature")
        _wait_for_the_claim(session)
        study = search(said, trials=6, study="killed", storage=file).compile(
            tuned, trainset=rows, session=session
        )
    assert "failed" == study.trials[2].state
    assert study.trials[2].point in [trial.point for trial in study.trials[3:]]
    assert 6 == sum(trial.state == "complete" for trial in study.trials)


def _wait_for_the_claim(session):
    """The claim of the killed process has half a minute to live; it is over here."""
    session.ledger._rarely().claims.clear()


def test_ctrl_c_keeps_the_state_and_leaves_the_session(  # noqa: PLR0917  fixtures
    live, tuned, rows, said, file, state
):
    before = state(live)
    runs = []

    def interrupted(gold, pred):
        runs.append(pred)
        if len(runs) == 50:
            raise KeyboardInterrupt
        return pred

    with pytest.raises(KeyboardInterrupt):
        search(interrupted, study="held", storage=file).compile(tuned, trainset=rows, session=live)
    assert before == state(live)
    live.set("temperature", 0.7)  # the claim is gone
    study = search(said, trials=5, study="held", storage=file).compile(tuned, trainset=rows, session=live)
    assert study.trials[2].error.startswith("KeyboardInterrupt")
    assert study.trials[2].point in [trial.point for trial in study.trials[3:]]


def test_trials_of_an_older_declaration_are_refused_or_mapped(rows, said, file):
    def declared(most):
        class Agent(Program):
            x = defvariable(Float(min=0.0, max=most), initial=0.1)

            def forward(self, q):
                return self.x

        return Agent

    options = {"study": "moved", "storage": file, "trials": 8}
    with Session() as session:
        first = search(said, **options).compile(declared(1.0), trainset=_examples(), session=session)
    with Session() as session:
        narrow = declared(0.6)
        with pytest.raises(VariableConflict, match="was made for another space: 'x' is declared differently"):
            search(said, **options).compile(narrow, trainset=_examples(), session=session)
        study = search(said, on_new_space="map", **options).compile(
            narrow, trainset=_examples(), session=session
        )
        lost = sum(trial.point["x"] > 0.6 for trial in first.trials)
        assert lost
        assert f"{8 - lost} trials of the older space are kept" == study.notes[0]
        assert lost == sum("is not kept: value must be at most 0.6" in note for note in study.notes)
        again = search(said, on_new_space="map", **{**options, "trials": 9}).compile(
            narrow, trainset=_examples(), session=session
        )
        assert len(again.trials) >= len(study.trials)


def test_a_study_of_other_examples_or_of_somebody_else_is_refused(live, tuned, rows, said, file):
    search(said, study="mine", storage=file, trials=2).compile(tuned, trainset=rows, session=live)
    with pytest.raises(VariableConflict, match="was made with other examples"):
        search(said, study="mine", storage=file).compile(tuned, trainset=rows[:5], session=live)
    theirs = optuna.create_study(study_name="theirs", storage=file, direction="maximize")
    theirs.tell(theirs.ask({"x": optuna.distributions.FloatDistribution(0, 1)}), 1.0)
    with pytest.raises(VariableConflict, match="that dspex has not made"):
        search(said, study="theirs", storage=file).compile(tuned, trainset=rows, session=live)


# ---- what is wrong with a search -----------------------------------------------------------------


class Nothing(Program):
    free = defvariable(Float(), initial=0.0)
    fixed = defvariable(Float(min=0.0, max=1.0), initial=0.0, tunable=False)

    def forward(self, x):
        return x


class Hopeless(Program):
    x = defvariable(Float(min=0.0, max=1.0), initial=0.0)

    def forward(self, q):
        return self.x

    @rule
    def zero(self):
        return None if self.x == 0.0 else "x must be 0"


@pytest.fixture
def given(tuned, rows, said):
    """A search with nothing wrong."""
    return {"metric": said, "program": tuned, "trainset": rows, "storage": None}


def _raises(*_):
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        ({"trainset": []}, (InvalidValue, "the dataset must be at least one example")),
        ({"metric": _raises}, (MetricFailed, "it raised ZeroDivisionError")),
        ({"metric": lambda *_: float("nan")}, (MetricFailed, "must give a finite number")),
        (
            {"program": Nothing},
            (InvalidDeclaration, "Nothing has nothing to tune. free: it has no min and max"),
        ),
        (
            {"storage": "sqlite:////no/such/folder/x.db"},
            (StoreUnavailable, "the study storage .* cannot be used"),
        ),
    ],
)
def test_bad_input_is_a_typed_error_and_leaves_the_session(given, live, state, options, refused):
    error, sentence = refused
    given = {**given, **options}
    before = state(live)
    with pytest.raises(error, match=sentence):
        search(given["metric"], storage=given["storage"]).compile(
            given["program"], trainset=given["trainset"], session=live
        )
    after = state(live)
    assert before[1].items() <= after[1].items()
    assert before[0] == after[0]
    live.set("temperature", 0.8)  # nobody claims it


def test_rules_that_refuse_everything_end_the_search_and_say_so(said):
    with Session() as session:
        study = search(said, trials=5).compile(Hopeless, trainset=_examples(), session=session)
        assert "100 candidates in a row were refused or tried before" in study.notes[-1]
        assert 0.0 == session.get("x")


def test_names_that_somebody_claims_are_not_searched(live, tuned, rows, said):
    with (
        live.claim(["style"], owner="another-study", ttl=60),
        Session("live") as other,
        pytest.raises(Claimed, match="another-study"),
    ):
        in_thread(lambda: search(said).compile(tuned, trainset=rows, session=other))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"trials": 0}, "trials must be at least 1"),
        ({"sampler": "bayes"}, "sampler must be a sampler of Optuna or one of 'tpe'"),
        ({"objectives": ("speed",)}, "objectives must be some of 'score', 'seconds'"),
        ({"objectives": ("score", "seconds")}, "say which to take with choose="),
        ({"seconds": 0}, "seconds must be more than 0"),
        ({"on_new_space": "forget"}, "on_new_space must be 'refuse' or 'map'"),
    ],
)
def test_options_that_cannot_be_are_refused(said, options, sentence):
    with pytest.raises((InvalidValue, InvalidDeclaration), match=sentence):
        search(said, **options)


def test_optuna_is_as_talkative_as_before(live, tuned, rows, said):
    level = optuna.logging.get_verbosity()
    search(said, trials=2).compile(tuned, trainset=rows[:1], session=live)
    assert level == optuna.logging.get_verbosity()

"""What a search does where it ends early, is given up, or finds nothing, and what it says then."""

import asyncio
import sys
from concurrent.futures import Future

import optuna
import pytest

from dspex import (
    Choice,
    Claimed,
    Float,
    InvalidCall,
    InvalidValue,
    MetricFailed,
    MissingExtra,
    Program,
    Session,
    UnknownRevision,
    defvariable,
    rule,
)
from dspex.optimizers import JointOptimizer, OptunaOptimizer
from dspex.optimizers import trials as trials_module
from dspex.optimizers.plots import possible
from dspex.optimizers.reports import html
from dspex.optimizers.screening import Screening
from dspex.optimizers.storage import need_optuna
from dspex.optimizers.stored import stored_study
from dspex.optimizers.studies import Trial
from dspex.optimizers.trials import Budget, kept


class Agent(Program):
    x = defvariable(Float(min=0.0, max=1.0), initial=0.5)

    def forward(self, q):
        return self.x


ROWS = [{"q": q} for q in range(20)]


def output(gold, pred):
    return pred


def search(metric=output, **options):
    return OptunaOptimizer(metric, **{"storage": None, "trials": 3, **options})


def compiled(optimizer, **settings):
    with Session("live") as session:
        return optimizer.compile(Agent, trainset=ROWS, session=session, **settings)


# ---- giving up -----------------------------------------------------------------------------------


def test_a_trial_that_cannot_be_the_best_is_given_up_once_another_is_complete():
    study = compiled(search(screen=4, first=[{"x": 0.9}, {"x": 0.1}]))
    states = {trial.point["x"]: (trial.state, trial.items) for trial in study.trials}
    assert {0.5: ("screened", 4), 0.9: ("complete", 20), 0.1: ("screened", 4)} == states
    assert 0.9 == study.best.score


def test_a_baseline_is_not_looked_at_again_when_something_is_better_for_certain():
    study = compiled(search(screen=8, trials=2, first=[{"x": 1.0}]))
    assert ["screened", "complete"] == [trial.state for trial in study.trials]
    assert study.baseline.interval[1] < 1.0 == study.best.score
    assert study.receipt is not None


@pytest.fixture
def shown():
    """Ask the pruner about a trial that has this mean after so many examples, with others complete before."""

    def ask(*complete, mean=None, count=5, direction="maximize"):
        with_others = optuna.create_study(direction=direction)
        for value in complete:
            with_others.tell(with_others.ask(), value)
        trial = with_others.ask()
        if mean is not None:
            trial.report(mean, count)
        frozen = with_others.get_trials(deepcopy=False)[-1]
        return Screening().prune(with_others, frozen)

    return ask


def test_a_mean_that_may_still_be_the_best_is_not_given_up(shown):
    assert shown(0.9, mean=0.2) is True
    assert shown(0.9, mean=0.8) is False
    assert shown(0.9, mean=0.8, count=5000) is True


def test_what_says_nothing_is_not_given_up(shown):
    assert shown(0.9) is False
    assert shown(mean=0.0) is False
    assert shown(90.0, mean=20.0) is False  # no score from 0 to 1
    assert shown(0.1, mean=0.9, direction="minimize") is False


# ---- what comes of it ----------------------------------------------------------------------------


def test_a_bound_program_is_searched_on_its_session():
    with Session("live") as session:
        study = search(first=[{"x": 0.9}]).compile(Agent.bind(session), trainset=ROWS)
        assert (Agent, session) == (study.program, study.session)
        assert session.get("x") == study.best.point["x"] >= 0.9


def test_a_search_can_be_awaited():
    with Session("live") as session:
        study = asyncio.run(search(first=[{"x": 1.0}]).acompile(Agent, trainset=ROWS, session=session))
        assert session.get("x") == study.best.point["x"] == 1.0


def test_a_sampler_of_optuna_is_taken_as_it_is():
    def found():
        sampler = optuna.samplers.RandomSampler(seed=3)
        study = compiled(search(sampler=sampler))
        assert study.optuna.sampler is sampler
        return [trial.point["x"] for trial in study.trials]

    assert found() == found()


def test_a_budget_that_ends_in_the_first_trial_leaves_nothing_to_pick():
    study = compiled(search(seconds=1e-9))
    assert (None, None) == (study.best, study.receipt)
    with pytest.raises(UnknownRevision, match=rf"study '{study.name}' has committed nothing"):
        study.rollback()
    assert study.name in str(study)
    assert "best" not in str(study)


def test_a_rule_of_several_objectives_picks_one_that_it_was_given():
    wrong = search(objectives=("score", "seconds"), choose=lambda _: "the best")
    with pytest.raises(InvalidValue, match=r"what choose\(\) returns must be one of the trials"):
        compiled(wrong)


def test_an_objective_that_the_models_do_not_say_is_no_number():
    silent = Trial(0, {}, {}, "complete", score=0.5)
    assert (0.5,) == silent.objectives(("score",))
    with pytest.raises(InvalidValue, match="cost must be an objective that the language model reports"):
        silent.objectives(("score", "cost"))


def test_points_to_try_first_that_a_rule_is_against_are_not_tried(tuned, rows, said):
    with Session() as session:
        study = search(said, first=[{"style": "brief", "temperature": 1.4}, {"grade": 3}], trials=2).compile(
            tuned, trainset=rows, session=session
        )
    assert [2, 3] == [trial.point["grade"] for trial in study.trials]


@pytest.mark.parametrize("package", ["optuna", "plotly"])
def test_without_a_package_the_extra_is_named(monkeypatch, package):
    study = compiled(search(trials=1))
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"dspex\[optuna\]"):
        need_optuna() if package == "optuna" else study.plot("history")


def test_a_report_without_plotly_has_all_but_the_plots(monkeypatch, tmp_path):
    study = compiled(search(first=[{"x": 1.0}]))
    monkeypatch.setitem(sys.modules, "plotly", None)
    page = study.report(tmp_path / "x.html").read_text()
    assert ("study.rollback()" in page, "plotly" in page.lower()) == (True, False)


def test_a_budget_that_ends_before_the_baseline_is_known_is_noted():
    spent = []

    def metric(gold, pred):
        spent.append(pred)
        if len(spent) > 12:
            optimizer.seconds_over()
        return pred

    class Impatient(OptunaOptimizer):
        """Has spent its time when told so."""

        def seconds_over(self):
            self.budget.stopped = True

        def _search(self, search):
            self.budget = search.budget
            return super()._search(search)

    optimizer = Impatient(metric, storage=None, trials=2, screen=4, first=[{"x": 0.1}])
    study = compiled(optimizer)
    assert ["screened", "screened"] == [trial.state for trial in study.trials]
    assert ("the budget was spent before it was certain that something is better",) == study.notes
    assert study.best is None


def test_parallel_trials_end_together_when_one_of_them_cannot_go_on():
    def metric(gold, pred):
        raise LookupError("no reference")

    with pytest.raises(MetricFailed, match="LookupError: no reference"):
        compiled(search(metric, parallel=2, trials=100))


def test_only_what_can_be_drawn_is():
    study = compiled(search(seconds=1e-9))
    assert not {"history", "pareto"} & {kind for kind, _ in possible(study)}
    study.optuna = None
    with pytest.raises(InvalidValue, match="history must be a plot of a study of Optuna"):
        study.plot("history")
    assert [] == possible(study)


def test_of_an_older_space_what_was_given_up_is_not_kept():
    def declared(most):
        class Aged(Agent):
            x = defvariable(Float(min=0.0, max=most), initial=0.5)

        return Aged

    def trials(most, **options):
        with Session() as session:
            made = search(storage=storage, study="moved", screen=4, commit=False, **options)
            return made.compile(declared(most), trainset=ROWS, session=session)

    storage = optuna.storages.InMemoryStorage()
    first = trials(1.0, first=[{"x": 0.9}, {"x": 0.1}])
    assert ["screened", "complete", "screened"] == [trial.state for trial in first.trials]
    study = trials(0.95, on_new_space="map", trials=2)
    assert "1 trials of the older space are kept" == study.notes[0]
    assert (0.9, "complete") == (study.trials[0].point["x"], study.trials[0].state)


# ---- the claim -----------------------------------------------------------------------------------


def test_a_search_whose_claim_somebody_else_has_taken_is_ended(monkeypatch, eventually):
    monkeypatch.setattr(trials_module, "TTL", 0.003)
    with Session("live") as session:
        Agent.bind(session)
        claim = session.claim(["x"], owner="study", ttl=30.0)
        budget = Budget(None, None)
        with kept(claim, budget):
            assert not budget.over
        session.ledger._rarely().claims.clear()  # as if its time were over
        with (
            session.claim(["x"], owner="somebody", ttl=30.0),
            pytest.raises(Claimed, match="somebody"),
            kept(claim, budget),
        ):
            eventually(lambda: budget.over, "the search is told to end")


# ---- the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_grid_of_optunas_ends_the_study_when_it_is_used_up(parallel):
    sampler = optuna.samplers.GridSampler({"x": [0.1, 0.9, 0.3]})
    study = compiled(search(sampler=sampler, trials=50, parallel=parallel))
    assert {0.5, 0.1, 0.9, 0.3} == {trial.point["x"] for trial in study.trials}
    assert {"complete"} == {trial.state for trial in study.trials}


def test_a_grid_of_optunas_goes_on_where_it_was_interrupted():
    storage = optuna.storages.InMemoryStorage()

    def interrupted(after):
        def metric(gold, pred):
            scored.append(pred)
            if len(scored) == after:
                raise KeyboardInterrupt
            return pred

        scored = []
        sampler = optuna.samplers.GridSampler({"x": [0.1, 0.9, 0.3]})
        return compiled(
            search(metric, sampler=sampler, trials=50, storage=storage, study="again", commit=False)
        )

    for after in (30, 30, 30):  # in each second trial of those that are left
        with pytest.raises(KeyboardInterrupt):
            interrupted(after)
    study = interrupted(None)
    complete = [trial.point["x"] for trial in study.trials if trial.state == "complete"]
    assert [0.1, 0.3, 0.5, 0.9] == sorted(complete)


def test_a_grid_of_one_point_is_a_grid():
    study = compiled(search(sampler=optuna.samplers.GridSampler({"x": [0.9]}), trials=50))
    assert [0.5, 0.9] == [trial.point["x"] for trial in study.trials]


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_so_does_any_other_sampler_that_has_nothing_more_to_suggest():
    class Stepped(Agent):
        x = defvariable(Float(min=0.0, max=1.0, step=0.25), initial=0.5)

    with Session() as session:
        study = search(sampler=optuna.samplers.BruteForceSampler(), trials=50).compile(
            Stepped, trainset=ROWS, session=session
        )
    assert [0.0, 0.25, 0.5, 0.75, 1.0] == sorted({trial.point["x"] for trial in study.trials})


def test_a_used_up_sampler_ends_a_study_that_goes_on():
    storage = optuna.storages.InMemoryStorage()
    studies = [
        compiled(
            search(
                sampler=optuna.samplers.GridSampler({"x": [0.1, 0.9]}),
                trials=50,
                storage=storage,
                study="again",
            )
        )
        for _ in "ab"
    ]
    assert [3, 3] == [len({trial.point["x"] for trial in study.trials}) for study in studies]


def test_a_grid_goes_on_with_the_points_that_are_left():
    storage = optuna.storages.InMemoryStorage()
    for trials in (2, 50):
        study = compiled(search(sampler="grid", grid_points=4, trials=trials, storage=storage, study="again"))
    assert [0.5, 0.0, 1 / 3, 2 / 3, 1.0] == [trial.point["x"] for trial in study.trials]


def test_a_second_look_at_the_baseline_is_not_taken_for_what_waits_to_be_tried():
    waiting = [{"x": 0.1}, {"x": 0.2}, {"x": 0.3}]
    study = compiled(search(lambda *_: 0.5, screen=4, trials=2, first=waiting))
    assert (0.5, "complete", 20) == (study.baseline.point["x"], study.baseline.state, study.baseline.items)
    assert [0.1, 0.5] == [trial.point["x"] for trial in study.trials]


def test_a_point_that_is_proposed_again_is_one_trial(file):
    class Coin(Program):
        x = defvariable(Choice(0.1, 0.5, 0.9), initial=0.5)

        def forward(self, q):
            return self.x

    with Session() as session:
        sampler = optuna.samplers.RandomSampler(seed=1)
        study = search(sampler=sampler, trials=3, storage=file, study="coin").compile(
            Coin, trainset=ROWS, session=session
        )
    assert len(study.optuna.trials) > 3
    assert [0.1, 0.5, 0.9] == sorted(trial.point["x"] for trial in study.trials)
    assert str(study).startswith("coin: 3 trials, 3 complete, ")
    assert [one.number for one in study.trials] == [one.number for one in stored_study(file, "coin").trials]


def test_what_was_not_scored_is_told_apart_from_the_trials():
    class Ruled(Agent):
        @rule
        def low(self):
            return "too high" if self.x > 0.5 else None

    with Session() as session:
        sampler = optuna.samplers.RandomSampler(seed=1)
        study = search(sampler=sampler, trials=6).compile(Ruled, trainset=ROWS, session=session)
    refused = len(study.trials) - 6
    assert refused > 0
    assert f"{study.name}: 6 trials, 6 complete, {refused} refused, " in str(study)


# ---- what is said --------------------------------------------------------------------------------


def test_an_option_that_there_is_not_is_refused_with_the_nearest_name():
    with pytest.raises(
        InvalidCall, match=r"OptunaOptimizer has no option 'tirals'\. Did you mean 'trials'\?"
    ):
        OptunaOptimizer(output, tirals=3)
    with pytest.raises(
        InvalidCall, match=r"JointOptimizer has no option 'secnds'\. Did you mean 'seconds'\?"
    ):
        JointOptimizer(output, secnds=3)


@pytest.mark.parametrize("screen", [None, 3])
def test_a_metric_that_fails_says_on_which_example(screen):
    def metric(gold, pred):
        return pred / (gold.q - 5)

    with pytest.raises(MetricFailed, match=r"given for example 5 of the dataset, \{'q': 5\}\)\.$"):
        compiled(search(metric, screen=screen, first=[{"x": 0.9}]))


def test_the_claim_of_a_study_holds_for_what_it_calls():
    def meddle(_):
        session.set("x", 0.0)

    def meddle_too(gold, pred):
        meddle(None)

    with Session("live") as session:
        Agent.bind(session)
        with pytest.raises(Claimed, match="study-"):
            search(on_trial=meddle).compile(Agent, trainset=ROWS, session=session)
        session.set("x", 0.25)  # the claim has ended with the search
        with pytest.raises(MetricFailed, match="it raised Claimed"):
            search(meddle_too).compile(Agent, trainset=ROWS, session=session)


def test_lm_calls_that_nobody_counted_are_not_said_to_be_none():
    class Elsewhere:
        def submit(self, program, inputs, *, session, deadline, pin):
            future = Future()
            future.set_result(program.run(**inputs, session=session, pin=pin))
            return future

    study = compiled(search(pool=Elsewhere()))
    assert study.lm_calls is None
    assert " s, LM calls not counted. " in html(study)
    assert 0 == compiled(search()).lm_calls

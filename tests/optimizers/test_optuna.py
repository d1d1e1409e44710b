"""Searching with Optuna on a live session."""

import threading

import optuna
import pytest

from dspex import Claimed, Float, Program, Session, defvariable, rule
from dspex.optimizers import OptunaOptimizer


def search(metric, **options):
    return OptunaOptimizer(metric, **{"trials": 12, "storage": None, **options})


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


def test_optuna_is_as_talkative_as_before(live, tuned, rows, said):
    level = optuna.logging.get_verbosity()
    search(said, trials=2).compile(tuned, trainset=rows[:1], session=live)
    assert level == optuna.logging.get_verbosity()

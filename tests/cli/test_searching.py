"""Each option of `dspex optimize` is what the optimizer does."""

import json
import sys

import pytest

pytest.importorskip("optuna")

import optuna

from dspex import Session
from dspex.cli.searching import STORAGE


@pytest.fixture
def kept(search):
    """Search; the trials that were kept, and what was said."""

    def run(*arguments, **settings):
        done = search("--study", "kept", *arguments, **settings)
        return optuna.load_study(study_name="kept", storage=STORAGE).trials, done

    return run


def values(trials):
    return [trial.params["x"] for trial in trials]


def test_a_grid_has_so_many_points(kept):
    trials, _ = kept("--sampler", "grid", "--grid-points", 3)
    assert [0.1, 0.0, 0.5, 1.0] == values(trials)


def test_another_sampler_tries_something_else(kept, search):
    random, _ = kept("--sampler", "random", "--trials", 12)
    search("--study", "other", "--sampler", "tpe", "--trials", 12)
    assert values(random) != values(optuna.load_study(study_name="other", storage=STORAGE).trials)


@pytest.mark.parametrize("options", [("--parallel", 2, "--trials", 2), ("--threads", 2, "--trials", 1)])
def test_trials_and_examples_are_there_at_the_same_time(kept, options):
    trials, _ = kept(*options, program="shop:Paired")
    assert [0] * len(trials) == [trial.user_attrs["dspex"]["failures"] for trial in trials]


def test_an_example_has_a_deadline(kept):
    (trial,), _ = kept("--trials", 1, "--deadline", 5, program="shop:Timely")
    assert 0.0 < trial.value <= 5.0


def test_examples_run_in_workers(kept):
    (trial,), _ = kept(
        *("--trials", 1, "--workers", 2, "--metric", "shop:elsewhere"), program="shop:Elsewhere"
    )
    assert (1.0, 0) == (trial.value, trial.user_attrs["dspex"]["failures"])


def test_of_several_objectives_the_rule_picks(kept):
    objectives = ("--objectives", "score:max, seconds:min", "--trials", 6, "--no-commit", "--json")
    # Of those that nothing beats in both, the slowest is the best.
    for rule, name, best in (
        ("score", "score", max),
        ("seconds", "seconds", min),
        ("shop:slowest", "score", max),
    ):
        trials, done = kept(*objectives, "--choose", rule)
        said = [trial.user_attrs["dspex"] for trial in trials]
        assert best(one[name] for one in said) == done.json["best"][name]


def test_what_is_said_of_a_trial_has_all_objectives(search):
    done = search("--objectives", "score,seconds", "--choose", "score", "--trials", 2)
    assert " seconds on 4: x=0.1" in done.out


def test_candidates_are_chosen_from(kept, shop):
    (shop / "some.json").write_text(json.dumps({"free": [1.5, 2.5]}))
    trials, _ = kept("--candidates", "some.json", "--sampler", "grid", "--grid-points", 1)
    assert {0.0, 1.5, 2.5} == {trial.user_attrs["dspex"]["shown"]["free"] for trial in trials}
    plan = json.loads(kept("--candidates", "some.json", "--dry-run", "--json")[1].out)
    assert "0.0, 1.5, 2.5" == plan["searched"][1]["over"]


def test_looking_sets_nothing(search, url):
    done = search("--trials", 4, "--no-commit")
    assert done.err.endswith("nothing is set\n")
    assert "best" in done.out
    with Session("prod", store=url) as session:
        assert 0 == session.record("x").version


def test_trials_of_an_older_declaration_may_be_mapped(search, shop):
    search("--study", "kept", "--trials", 3, "--no-commit")
    declared = (shop / "shop.py").read_text()
    (shop / "shop.py").write_text(declared.replace("max=1.0", "max=0.99", 1))
    sys.modules.pop("shop")
    private = {"DSPEX_STORE": None, "DSPEX_SESSION": None}
    assert "on_new_space='map'" in search("--study", "kept", "--trials", 4, code=1, **private).err
    mapped = search("--study", "kept", "--trials", 4, "--on-new-space", "map", **private)
    assert "3 trials of the older space are kept" in mapped.err


@pytest.fixture
def dummy():
    """A model that says the same again and again."""
    dspy = pytest.importorskip("dspy")
    lm = dspy.utils.DummyLM([{"answer": "0"}] * 500)
    with dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        yield lm


ASKING = {"program": "shop:Asking", "DSPEX_STORE": None, "DSPEX_SESSION": None}


def test_another_optimizer_of_dspy_is_asked_with_its_settings(dummy, search):
    told = 'BootstrapFewShotWithRandomSearch={"num_candidate_programs": 1, "max_labeled_demos": 1}'
    search(
        "--study", "kept", "--optimizer", "dspy", "--teleprompter", told, "--metric", "shop:right", **ASKING
    )
    about = optuna.load_study(study_name="kept", storage=STORAGE).user_attrs["dspex"]
    assert "BootstrapFewShotWithRandomSearch" == about["teleprompter"]


def test_joint_asks_all_that_are_named(dummy, search):
    search(
        *("--study", "kept", "--optimizer", "joint", "--trials", 1, "--metric", "shop:right"),
        *(
            "--teleprompter",
            'BootstrapFewShot={"max_labeled_demos": 1}',
            "--teleprompter",
            "BootstrapFewShot",
        ),
        **ASKING,
    )
    about = optuna.load_study(study_name="kept", storage=STORAGE).user_attrs
    assert ["dspex.found.0.BootstrapFewShot", "dspex.found.1.BootstrapFewShot"] == sorted(
        name for name in about if "found" in name
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--objectives", "score,seconds"), "say with --choose which to take"),
        (("--objectives", "score:min"), "score is looked for as score:max"),
        (("--objectives", "seconds:max"), "seconds is looked for as seconds:min"),
        (("--choose", "score"), "it is for several --objectives"),
        (("--grid-points", 3), "it is for --sampler grid"),
        (("--sampler", "best"), "best"),
        (("--parallel", 0), "greater than or equal to 1"),
        (("--workers", 2, "--lm-calls", 9), "nobody counts them in --workers"),
        (("--teleprompter", "GEPA"), "--optimizer optuna has no such option; joint and dspy have it"),
        (("--optimizer", "joint", "--teleprompter", "GEPA=1"), 'settings are NAME={"setting": …}'),
        (("--optimizer", "joint", "--teleprompter", "GEPA={"), "that is not JSON"),
        (("--optimizer", "dspy", "--teleprompter", "GEPA", "--teleprompter", "COPRO"), "takes one"),
        (("--optimizer", "dspy", "--sampler", "tpe"), "for --sampler: --optimizer dspy has no such option"),
        (("--candidates", "none.json"), "none.json"),
        (("--candidates", "train.jsonl"), "that is not JSON"),
        (("--candidates", "list.json"), 'list.json must have {"NAME": [VALUE, …]}'),
    ],
)
def test_options_that_cannot_be_are_refused(search, shop, arguments, sentence):
    (shop / "list.json").write_text("[1]")
    assert sentence in " ".join(search(*arguments, code=2).err.split())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--objectives", "speed"), "objectives must be some of 'score', 'seconds'"),
        (("--objectives", "score,seconds", "--choose", "shop:number"), "choose must be a function (got 7)."),
        (
            ("--optimizer", "joint", "--teleprompter", "GAPE"),
            "teleprompter must be one of 'BootstrapFewShot'",
        ),
        (("--deadline", 0), "deadline must be more than 0"),
        (("--seconds", -1), "seconds must be more than 0"),
    ],
)
def test_what_an_optimizer_refuses_is_one_sentence(search, arguments, sentence):
    done = search(*arguments, code=1)
    assert sentence in done.err
    assert 1 == done.err.count("\n")

"""Commands of studies."""

from __future__ import annotations

import re

import pytest

pytest.importorskip("optuna")

import optuna

from dspex import Session
from dspex.cli import optimizing
from dspex.optimizers.kept import DEFAULT_STORAGE

SEARCHED = ("--data", "train.jsonl", "--metric", "shop:metric")
PRIVATE = {"DSPEX_STORE": None, "DSPEX_SESSION": None}


def prod(url, read):
    with Session("prod", store=url) as session:
        return read(session)


def test_the_winner_is_set_with_study_trial_and_score(search, url):
    done = search("--trials", 6, "--study", "first")
    record = prod(url, lambda session: session.record("x"))
    said = record.metadata
    assert record.value > 0.1
    assert (record.source, said["study"], said["score"]) == ("study first", "first", record.value)
    summary, baseline, best, change = done.out.splitlines()
    assert summary.startswith("first: 6 trials, 6 complete, ")
    assert baseline == "  baseline 0.100 on 4: x=0.1"
    assert best == f"  best {record.value:.3f} on 4: x={record.value}"
    assert change == f"x 0.1 -> {record.value}"
    told = done.err.splitlines()
    assert (len(told), told[0].split()) == (6, ["0", "complete", "0.100", "4", "0.00", "x=0.1"])


def test_json_has_the_study_in_one_object_and_nothing_else(search, url, shop):
    done = search("--trials", 6, "--study", "first", "--report", "first.html", "--json")
    record = prod(url, lambda session: session.record("x"))
    found = done.json
    (change,) = found.pop("changes")
    assert (change["name"], change["old"], change["value"]) == ("x", 0.1, record.value)
    assert change["metadata"] == dict(record.metadata)
    best, baseline = found.pop("best"), found.pop("baseline")
    assert (best["number"], best["score"]) == (record.metadata["trial"], record.value)
    assert (best["state"], best["values"]) == ("complete", {"x": record.value})
    assert (baseline["baseline"], baseline["values"]) == (True, {"x": 0.1})
    assert found.pop("seconds") > 0
    assert found == {
        "study": "first",
        "session": "prod",
        "revision": str(record.revision),
        "trials": 6,
        "lm_calls": 0,
        "notes": [],
        "report": "first.html",
    }
    assert done.err == ""
    assert "first" in (shop / "first.html").read_text()


def test_a_study_goes_on_where_it_was_and_its_trials_are_listed(search, dspex_, shop):
    search("--trials", 3, "--study", "first")
    best = search("--trials", 5, "--study", "first", "--json").json["best"]
    lines = dspex_("trials").out.splitlines()
    assert [line.split() for line in lines] == [
        ["STUDY", "PROGRAM", "TRIALS", "BEST", "SCORE"],
        ["first", "Agent", "5", f"{best['score']:.3f}"],
    ]
    (study,) = dspex_("trials", "--json").json
    assert study == {"study": "first", "program": "Agent", "trials": 5, "best": best}
    heads, *rows = dspex_("trials", "first").out.splitlines()
    assert heads.split() == ["TRIAL", "STATE", "SCORE", "ON", "S", "EACH", "VALUES"]
    assert rows[0].split() == ["0", "complete", "0.100", "4", "0.00", "x=0.1"]
    listed = dspex_("trials", "first", "--json").json
    assert listed[best["number"]] == best
    assert len(listed) == len(rows) == 5


def test_the_storage_is_the_one_that_optimizers_have_by_default(search, shop):
    assert optimizing.STORAGE == DEFAULT_STORAGE
    search("--trials", 1)
    assert (shop / "dspex-studies.db").exists()
    search("--trials", 1, "--storage", "sqlite:///other.db")
    assert (shop / "other.db").exists()


def test_looking_for_trials_makes_no_file(dspex_, shop):
    assert "dspex-studies.db is not there" in dspex_("trials", code=3).err
    assert not (shop / "dspex-studies.db").exists()
    assert "cannot be used" in dspex_("trials", "--storage", "nonsense", code=3).err


def test_a_dry_run_says_what_would_be_searched_and_does_nothing(search, url, shop):
    done = search("--dry-run")
    heads, first, second = done.out.splitlines()
    assert heads.split() == ["VARIABLE", "VALUE", "SEARCHED", "WHILE"]
    assert first.split() == ["x", "0.1", "0", "to", "1"]
    assert second.split(maxsplit=1) == ["free", "not: it has no min and max to search between"]
    assert done.err == "a trial would be scored on 4 examples\n"
    assert search("--dry-run", "--json").json == {
        "program": "Agent",
        "examples": 4,
        "searched": [{"name": "x", "value": 0.1, "over": "0 to 1", "when": None}],
        "left_out": {"free": "it has no min and max to search between"},
    }
    assert not (shop / "dspex-studies.db").exists()
    assert prod(url, lambda session: session.record("x").version) == 0


def test_a_dry_run_declares_nothing_and_knows_what_an_optimizer_makes_itself(search, url):
    pytest.importorskip("dspy")
    asked = {"program": "shop:Asking"}
    assert "demos" in search("--dry-run", "--json", **asked).json["left_out"]
    joint = search("--dry-run", "--json", "--optimizer", "joint", **asked).json
    assert [(one["name"], one["over"]) for one in joint["searched"]] == [
        ("x", "0 to 1"),
        ("demos", optimizing.CANDIDATES),
    ]
    prompts = search("--dry-run", "--json", "--optimizer", "dspy", **asked).json
    assert [one["name"] for one in prompts["searched"]] == ["demos"]
    assert prompts["left_out"]["x"] == "not by this optimizer"
    assert prod(url, lambda session: "demos" in session.variables) is False


def test_without_a_session_a_private_one_is_searched(search):
    done = search("--trials", 4, **PRIVATE)
    assert "x 0.1 -> " in done.out
    assert done.err.endswith("a private session, and it is gone: set the values where they are wanted\n")
    assert search("--trials", 4, "--json", **PRIVATE).json["session"] is None


def test_where_nothing_is_better_nothing_is_set(search, url):
    done = search("--trials", 1)
    assert done.err.endswith("nothing was better than what there is; nothing is set\n")
    assert search("--trials", 1, "--json").json["revision"] is None
    assert prod(url, lambda session: session.record("x").version) == 0


@pytest.mark.parametrize(
    ("program", "arguments", "sentence"),
    [
        ("shop", (), "the program must be spelled package.module:name (got 'shop')."),
        ("shpo:Agent", (), "the program 'shpo:Agent' is in no module that there is."),
        ("shop:Agnet", (), "the program 'shop:Agnet' is not in shop. Did you mean 'Agent'?"),
        ("shop:number", (), "the program must be a class of dspex.Program (got 7)."),
        ("shop:Agent", ("--metric", "shop:metrik"), "the metric 'shop:metrik' is not in shop."),
        ("shop:Agent", ("--metric", "shop:number"), "metric must be a function (got 7)."),
        ("shop:Agent", ("--data", "none.jsonl"), "a file that can be read"),
        ("shop:Other", (), "session 'prod' is of another program: it has no variable of Other"),
        ("shop:Agent", ("--session", "none"), "the store has no session 'none'."),
    ],
)
def test_what_is_wrong_is_one_sentence_and_changes_nothing(search, url, program, arguments, sentence):
    done = search(*arguments, program=program, code=1)
    assert sentence in done.err
    assert (done.out, done.err.count("\n")) == ("", 1)
    names = prod(url, lambda session: list(session.variables))
    assert names == ["x", "free"]


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (("--optimizer", "dspy", "--trials", "3"), {}, "for --trials: --optimizer dspy has no such option"),
        (("--optimizer", "dspy", "--screen", "3"), {}, "for --screen: --optimizer dspy has no such option"),
        ((), {"DSPEX_STORE": None}, "--store and --session go together"),
        (("--optimizer", "magic"), {}, "magic"),
    ],
)
def test_options_that_do_not_fit_are_refused(search, arguments, environment, sentence):
    assert sentence in " ".join(search(*arguments, code=2, **environment).err.split())


def test_a_study_that_dspex_has_not_made_is_listed_as_such(dspex_, shop):
    optuna.create_study(study_name="theirs", storage=optimizing.STORAGE)
    assert dspex_("trials", "--json").json == [
        {"study": "theirs", "program": None, "trials": 0, "best": None}
    ]
    assert "has no study 'thiers'. Did you mean 'theirs'?" in dspex_("trials", "thiers", code=1).err


def test_claimed_names_are_a_conflict(search, url):
    with Session("prod", store=url) as session:
        session.claim(["x"], owner="somebody", ttl=60.0)
    assert "claimed by 'somebody'" in search("--trials", 2, code=4).err
    assert prod(url, lambda session: session.record("x").version) == 0


def test_ctrl_c_leaves_the_session_and_says_how_to_go_on(command, shop, url):
    process = command(
        *("optimize", "shop:Stuck", *SEARCHED, "--session", "prod", "--store", url, "--study", "long"),
        cwd=shop,
    )
    assert process.line().split() == ["0", "complete", "0.100", "4", "0.00", "x=0.1"]
    assert process.line() == "stuck"
    assert process.end() == 130
    assert process.rest() == ["stopped, and the session is as it was. --study long goes on with it."]
    with Session("prod", store=url) as session, session.claim(["x"], owner="next", ttl=60.0):
        assert session.record("x").version == 0


def test_a_terminal_sees_a_table_grow(terminal, shop, url):
    printed = terminal(
        *("optimize", "shop:Agent", *SEARCHED, "--trials", "15", "--session", "prod", "--store", url),
        cwd=shop,
    )
    best = prod(url, lambda session: session.get("x"))
    *_, table = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed).split("TRIAL ")
    assert [int(number) for number in re.findall(r"^(\d+) +complete", table, re.MULTILINE)][-12:] == [
        *range(3, 15)
    ]
    assert f"\x1b[36m{best:.3f}" in printed


@pytest.mark.parametrize("report", ["nowhere/x.html", "shop.py/x.html"])
def test_a_report_that_could_not_be_written_is_refused_before_anything_is_searched(search, url, shop, report):
    done = search("--trials", 2, "--report", report, code=2)
    assert "--report" in done.err
    assert not (shop / "dspex-studies.db").exists()
    assert prod(url, lambda session: session.record("x").version) == 0

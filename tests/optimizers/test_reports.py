"""Seeing a study: plots, the report, the command line."""

import json
import sys

import optuna
import pytest

from dspex import InvalidValue, Session
from dspex.optimizers import OptunaOptimizer
from dspex.optimizers.__main__ import main
from dspex.optimizers.plots import PLOTS


@pytest.fixture
def study(live, tuned, rows, said):
    return OptunaOptimizer(said, trials=15, storage=None, study="seen").compile(
        tuned, trainset=rows, session=live
    )


def test_the_plots_are_optunas_own(study):
    for kind in ("history", "parallel", "importances", "slice", "timeline"):
        assert study.plot(kind).data
    with pytest.raises(InvalidValue, match="kind must be one of 'history'"):
        study.plot("pie")
    with pytest.raises(InvalidValue, match="a plot for one objective"):
        study.plot("pareto")
    assert "pareto" in PLOTS


def test_the_report_needs_nothing_else_and_shows_every_trial(study, tmp_path):
    page = study.report(tmp_path / "seen.html").read_text()
    for attribute in ('src="http', "src='http", '<link rel="stylesheet"'):
        assert attribute not in page
    assert page.count("<tr class='") >= len(study.trials)
    assert "study.rollback()" in page
    assert f"{study.best.score:.3f}" in page


def test_what_a_user_wrote_is_no_markup(live, tuned, rows, said, tmp_path):
    study = OptunaOptimizer(said, trials=2, storage=None).compile(tuned, trainset=rows, session=live)
    study.notes = ("<script>alert(1)</script>",)
    assert "<script>alert(1)" not in study.report(tmp_path / "x.html").read_text()


PROGRAM = """
from dspex import Float, Program, defvariable

class Agent(Program):
    x = defvariable(Float(min=0.0, max=1.0), initial=0.1)
    free = defvariable(Float(), initial=0.0)

    def forward(self, q):
        return self.x

def metric(example, output):
    return output
"""


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """A working directory with a program and examples."""
    (tmp_path / "shop.py").write_text(PROGRAM)
    (tmp_path / "train.jsonl").write_text("\n".join(json.dumps({"q": q}) for q in range(4)))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "150")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("shop", None)


ASKED = ("optimize", "shop:Agent", "--data", "train.jsonl", "--metric", "shop:metric")


def test_the_command_optimizes_a_session_and_lists_the_trials(shop, capsys):
    where = ("--session", "prod", "--store", "sqlite:///agent.db")
    assert 0 == main([*ASKED, *where, "--trials", "6", "--study", "first", "--report", "first.html"])
    said = capsys.readouterr().out
    assert "Committed to session 'prod' at revision 1." in said
    assert (shop / "first.html").exists()
    with Session("prod", store="sqlite:///agent.db") as session:
        best = session.get("x")
        assert "first" == session.record("x").metadata["study"]
    assert best > 0.1
    assert 0 == main(["trials"])
    assert "first" in capsys.readouterr().out
    assert 0 == main(["trials", "first"])
    assert f"{best:.3f}" in capsys.readouterr().out


def test_a_dry_run_says_what_would_be_searched_and_does_nothing(shop, capsys):
    assert 0 == main([*ASKED, "--dry-run"])
    said = capsys.readouterr().out
    assert "40 trials on 4 examples would search" in said
    assert "0 to 1" in said
    assert "not: it has no min and max to search between" in said
    assert not (shop / "dspex-studies.db").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("optimize", "shop", *ASKED[2:]), "spelled package.module:name"),
        (("optimize", "shpo:Agent", *ASKED[2:]), "in a module that there is"),
        (("optimize", "shop:Agnet", *ASKED[2:]), "Did you mean 'Agent'"),
        ((*ASKED[:3], "none.jsonl", *ASKED[4:]), "a file that can be read"),
        (("trials", "none"), "study must be one of"),
    ],
)
def test_what_is_wrong_is_one_sentence(shop, capsys, arguments, sentence):
    optuna.create_study(study_name="other", storage="sqlite:///dspex-studies.db")
    assert 1 == main(list(arguments))
    assert sentence in capsys.readouterr().err

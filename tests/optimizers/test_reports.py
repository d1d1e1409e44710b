"""Seeing a study: plots and the report."""

import pytest

from dspex import InvalidValue
from dspex.optimizers import OptunaOptimizer
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

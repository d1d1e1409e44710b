"""Studies go on where they were, in another call or another process, however the first one ended."""

import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from study_tools import KINDS, TRAIN, VAL, Adder, Diary, made

import dspex
from dspex import Float, Program, Session, VariableConflict, defvariable
from dspex.optimizers import OptunaOptimizer, studies


def search(metric, **options):
    return OptunaOptimizer(metric, **{"trials": 12, "storage": None, **options})


def compiled(kind, diary, session, **options):
    return made(kind, diary, **options).compile(Adder, trainset=TRAIN, valset=VAL, session=session)


def complete(study):
    return [trial for trial in study.trials if trial.state == "complete"]


def test_a_study_goes_on_where_it_was(live, tuned, rows, said, file):
    options = {"study": "long", "storage": file}
    first = search(said, trials=4, **options).compile(tuned, trainset=rows, session=live)
    second = search(said, trials=9, **options).compile(tuned, trainset=rows, session=live)
    known = [(trial.number, trial.point) for trial in first.trials]
    assert known == [(trial.number, trial.point) for trial in second.trials[: len(known)]]
    assert len(second.trials) >= 9


KILLED = """
import sys
from study_tools import TRAIN, VAL, Adder, Diary, Pupil, asked, kill, made
from dspex import Session

kind, diary, store, storage, last, number = sys.argv[1:]
with asked(Pupil()), Session("killed", store=store) as session:
    optimizer = made(kind, Diary(diary, last, int(number), kill), storage=storage)
    optimizer.compile(Adder, trainset=TRAIN, valset=VAL, session=session)
"""


@pytest.fixture
def killed(tmp_path, file, pupil):
    """A study in a process that is killed; call it to let it go on in this one: (study, lines since)."""

    def run(kind, last, number):
        diary, store = tmp_path / "diary", f"sqlite:///{tmp_path}/agent.db"
        arguments = [sys.executable, "-c", KILLED, kind, diary, store, file, last, str(number)]
        here = str(Path(__file__).parent)
        where = {"PYTHONPATH": f"{Path(dspex.__file__).parents[1]}:{here}", "PATH": "", "HOME": str(tmp_path)}
        assert -9 == subprocess.run(arguments, env=where, timeout=100, check=False).returncode
        before = Diary(diary).lines()
        assert (last, number) == (before[-1], before.count(last))
        with Session("killed", store=store) as session:
            assert 0.0 == session.get("temperature")
            assert () == session.get("demos")
            # The claim of the killed process has half a minute to live; it is over here.
            session.ledger._rarely().claims.clear()
            study = compiled(kind, Diary(diary), session, storage=file)
        return study, Diary(diary).lines()[len(before) :]

    return run


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_study_goes_on_and_tries_again_what_it_was_at(killed, kind):
    study, since = killed(kind, "example", len(VAL) + 3)
    assert ["complete", "failed"] == [trial.state for trial in study.trials[:2]]
    assert study.trials[1].point in [trial.point for trial in study.trials[2:]]
    assert 4 == len(complete(study))
    assert ["example"] * 3 * len(VAL) == since  # no trial again that was complete, and nothing found again


@pytest.mark.parametrize(("kind", "begun"), [("dspy", ["found"]), ("joint", ["second"])])
def test_a_teleprompter_that_was_in_the_middle_begins_again_and_no_other(killed, kind, begun):
    study, since = killed(kind, begun[0], 1)
    assert begun == [line for line in since if line != "example"]
    assert 1.0 == study.best.score


@pytest.mark.parametrize("kind", KINDS)
def test_ctrl_c_keeps_the_state_and_leaves_the_session(pupil, kind, tmp_path, file, state):
    def interrupt():
        raise KeyboardInterrupt

    diary = Diary(tmp_path / "diary", "example", len(VAL) + 3, interrupt)
    with Session("live") as session:
        Adder.bind(session)
        before = state(session)
        with pytest.raises(KeyboardInterrupt):
            compiled(kind, diary, session, storage=file)
        assert before == state(session)
        session.set("temperature", 0.0)  # the claim is gone
        written = len(diary.lines())
        study = compiled(kind, diary, session, storage=file)
    assert study.trials[1].error.startswith("KeyboardInterrupt")
    assert study.trials[1].point in [trial.point for trial in study.trials[2:]]
    assert ["example"] * 3 * len(VAL) == diary.lines()[written:]


def test_what_dspy_found_is_what_a_study_goes_on_with(pupil, tmp_path, file):
    diary = Diary(tmp_path / "diary")
    with Session("live") as session:
        first = compiled("dspy", diary, session, storage=file, lm_calls=2 * len(VAL) + 1)
        assert ["complete", "complete", "failed"] == [trial.state for trial in first.trials]
        assert ("the budget was spent before all that was to be tried had been tried",) == first.notes
        assert 2 == len(session.get("demos"))  # what is there now is one of those that were found
        second = compiled("dspy", diary, session, storage=file)
        third = compiled("dspy", diary, session, storage=file)
    assert [0, 2, 3, 3, 1] == [len(trial.point["demos"]) for trial in second.trials]
    assert second.trials == third.trials
    assert ["what is tried for 'task', 'demos' is what the study began with"] == list(third.notes)
    assert (["found"], 0) == ([line for line in diary.lines() if line != "example"], third.lm_calls)


def test_what_dspy_finds_is_of_one_of_its_optimizers(pupil, tmp_path, file):
    diary = Diary(tmp_path / "diary")
    with Session("live") as session:
        compiled("dspy", diary, session, storage=file)
        other = made("dspy", diary, storage=file, teleprompter="BootstrapFewShot")
        with pytest.raises(VariableConflict, match="other teleprompter: Finding, now BootstrapFewShot"):
            other.compile(Adder, trainset=TRAIN, valset=VAL, session=session)


def test_studies_without_a_name_are_each_their_own(tuned, monkeypatch):
    monkeypatch.setattr(studies.time, "strftime", lambda _: "now")
    first, second = (studies.new_name(tuned) for _ in range(2))
    assert first.startswith("Tuned-now-")
    assert first != second


def test_trials_of_an_older_declaration_are_refused_or_mapped(rows, said, file):
    def declared(most):
        class Agent(Program):
            x = defvariable(Float(min=0.0, max=most), initial=0.1)

            def forward(self, q):
                return self.x

        return Agent

    options = {"study": "moved", "storage": file, "trials": 8}
    with Session() as session:
        first = search(said, **options).compile(declared(1.0), trainset=[{"q": 1}], session=session)
    with Session() as session:
        narrow = declared(0.6)
        with pytest.raises(VariableConflict, match="was made for another space: 'x' is declared differently"):
            search(said, **options).compile(narrow, trainset=[{"q": 1}], session=session)
        study = search(said, on_new_space="map", **options).compile(
            narrow, trainset=[{"q": 1}], session=session
        )
        lost = sum(trial.point["x"] > 0.6 for trial in first.trials)
        assert lost
        assert f"{8 - lost} trials of the older space are kept" == study.notes[0]
        assert lost == sum("is not kept: value must be at most 0.6" in note for note in study.notes)
        again = search(said, on_new_space="map", **{**options, "trials": 9}).compile(
            narrow, trainset=[{"q": 1}], session=session
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

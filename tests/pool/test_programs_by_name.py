"""What a program is called on its way to a worker, and what a worker finds by that name."""

from __future__ import annotations

import sys
from textwrap import dedent

import pytest

from dspex import Program, UnknownProgram
from dspex.pool import programs
from dspex.testing.pool_programs import Echo

HERE = "dspex.testing.pool_programs"


@pytest.mark.parametrize("name", ["Echo", "dspex:", ":Echo", ""])
def test_a_name_is_of_a_module_and_a_class(name):
    for read in (programs.name_of, programs.load):
        with pytest.raises(UnknownProgram, match=r"^a program is named package\.module:Class \(got '"):
            read(name)


def test_a_program_has_the_name_under_which_it_is_loaded():
    assert programs.name_of(Echo) == f"{HERE}:Echo"
    assert programs.name_of(f"{HERE}:Echo") == f"{HERE}:Echo"
    assert programs.load(f"{HERE}:Echo") is Echo


@pytest.mark.parametrize("thing", [7, print, int, Echo()])
def test_a_pool_runs_classes_of_programs_only(thing):
    with pytest.raises(UnknownProgram, match="a pool runs Program classes"):
        programs.named([thing])


def test_one_program_or_many_are_named_once_each():
    assert list(programs.named(Echo)) == list(programs.named([Echo, f"{HERE}:Echo"])) == [f"{HERE}:Echo"]
    with pytest.raises(UnknownProgram, match=r"a pool needs programs to run: Pool\(\[ResearchAgent\]\)"):
        programs.named([])


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (f"{HERE}:Ecko", f"^module {HERE} has no Ecko. Did you mean 'Echo'"),
        (f"{HERE}:Mood", f"^{HERE}:Mood must be a Program "),
        ("dspex.nowhere:Echo", "^dspex.nowhere:Echo cannot be imported: No module named 'dspex.nowhere'"),
    ],
)
def test_a_worker_says_what_it_does_not_find(name, sentence):
    with pytest.raises(UnknownProgram, match=sentence):
        programs.load(name)


def test_a_module_that_wants_another_one_says_which(tmp_path, monkeypatch):
    (tmp_path / "wants_another.py").write_text("import another_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="another_that_is_not_there"):
        programs.load("wants_another:Any")


SCRIPT = """
from dspex import Program

class Mine(Program):
    def forward(self) -> str:
        return __name__

ran = __name__ == "__main__"
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    """A script, which is a module too; what this process calls its main one comes back at the end."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    monkeypatch.setitem(sys.modules, programs.MAIN, sys)
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "one_script.py"
    path.write_text(dedent(SCRIPT))
    return path


@pytest.mark.parametrize("how", ["path", "module"])
def test_a_worker_gets_the_classes_of_a_script_but_does_not_run_it_as_one(script, how):
    programs.import_main(how, str(script) if how == "path" else script.stem)
    mine = programs.load("__main__:Mine")
    assert issubclass(mine, Program)
    assert mine is sys.modules[programs.MAIN].Mine
    assert mine.run() == programs.MAIN
    assert sys.modules["__main__"].ran is False


def test_the_script_of_a_process_is_told_by_its_module_or_its_file(script, monkeypatch):
    main = type(sys)("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert programs.main_script() is None
    main.__file__ = str(script)
    assert programs.main_script() == ("path", str(script))
    main.__spec__ = sys.__spec__
    assert programs.main_script() == ("module", "sys")


def test_a_class_that_was_typed_in_has_no_name_for_a_worker(monkeypatch):
    main = type(sys)("__main__")
    typed = {"__name__": "__main__", "Program": Program}
    exec("class Typed(Program):\n    def forward(self): pass", typed)
    main.Typed = typed["Typed"]
    monkeypatch.setitem(sys.modules, "__main__", main)
    with pytest.raises(UnknownProgram, match="this Python was not started from a file"):
        programs.name_of(main.Typed)

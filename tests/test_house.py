"""What holds for the package as a whole."""

import importlib
import pkgutil
import re
import sys
from importlib.resources import files
from pathlib import Path

import pytest

import dspex
from dspex import DspexError

HOUSE = Path(dspex.__file__).parent
FILES = sorted(HOUSE.rglob("*.py"))
CORE = [
    name
    for _, name, _ in pkgutil.walk_packages([str(HOUSE)], "dspex.")
    if not name.startswith(
        ("dspex.cli.", "dspex.modules.", "dspex.lm.", "dspex.optimizers.", "dspex.pool.serving", "dspex.rpc")
    )
]
"""The rooms that need nothing but the core packages."""

IMPORT = """
import socket, sys, threading
core = ["attrs", "blinker", "cattrs", "msgspec"]
for name in core if "core" in sys.argv else ():
    __import__(name)
events = []
before = set(sys.modules)
sys.addaudithook(lambda event, args: events.append((event, args)))
threads = threading.active_count()

import dspex

heavy = {"dspy", "grpc", "redis", "ray", "optuna", "numpy", "asyncio", "litellm", "rich", "logging", "typer"}
rooms = ("modules.predictors", "rollouts", "rpc", "spaces", "stores.export", "tools")
heavy |= {f"dspex.{room}" for room in rooms}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
assert threading.active_count() == threads
for event, args in list(events):
    outside = ("socket.", "subprocess.", "os.fork", "os.system", "_thread.start", "ctypes")
    assert not event.startswith(outside), event
    assert event not in ("os.mkdir", "os.remove", "os.rename", "os.putenv"), (event, args)
    if event == "open":
        path, mode, flags = args
        assert mode in ("r", "rb", None), args
        assert not isinstance(flags, int) or flags & 3 == 0, args
        opened = str(path)
        assert opened.endswith((".py", ".pyc", ".so", ".pth")) or opened == "/dev/urandom", args
print("\\n".join(str(args[0]) for event, args in events if event == "open"))
"""


def test_importing_dspex_starts_nothing_and_loads_nothing_heavy(script):
    script(IMPORT)


def test_beside_its_core_packages_importing_dspex_opens_only_its_own_files_and_pythons(script):
    opened = script(IMPORT, "core").split()
    library = str(Path(re.__file__).parents[1])
    foreign = [
        path
        for path in opened
        if not path.startswith(str(HOUSE)) and (not path.startswith(library) or "site-packages" in path)
        if not re.search(r"site-packages/(attrs?|blinker|cattrs?|msgspec|typing_extensions)\b", path)
        if path.endswith((".py", ".pyc", ".so"))
    ]
    assert foreign == []


def test_a_session_starts_no_thread(script):
    script(
        """
import sys, threading
from dspex import Program, Session, defvariable

class Agent(Program):
    n = defvariable(int, initial=0)
    def forward(self):
        return self.n

with Session() as session:
    session.register("m", int, initial=0)
    session.watch("m", lambda change: None)
    session.set("m", 1)
    with session.changes() as changes, session.fork() as fork, session.batch():
        fork.set("m", 2)
    assert Agent.run(session=session) == 0
assert threading.active_count() == 1
assert "asyncio" not in sys.modules
"""
    )


@pytest.mark.parametrize("name", ["dspex", *CORE])
def test_what_is_public_is_listed_and_sorted(name):
    """As isort sorts: constants, classes, functions."""
    module = importlib.import_module(name)
    listed = list(module.__all__)
    assert sorted(set(listed), key=lambda one: (not one.isupper(), one[:1].islower(), one)) == listed
    for public in listed:
        assert hasattr(module, public)


def test_the_top_gives_only_what_its_rooms_list():
    for name in dspex.__all__:
        thing = getattr(dspex, name)
        room = sys.modules[thing.__module__]
        assert thing is getattr(room, name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_no_file_is_too_long(file):
    assert len(file.read_text().splitlines()) <= 450


def test_every_error_has_a_code_of_its_own():
    def below(error):
        return [error, *(one for child in error.__subclasses__() for one in below(child))]

    for name in CORE:
        importlib.import_module(name)
    mine = [error for error in below(DspexError) if error.__module__.startswith("dspex")]
    codes = [error.code for error in mine]
    assert sorted(set(codes)) == sorted(codes)
    assert all(re.fullmatch(r"[A-Z]+(_[A-Z]+)*", code) for code in codes)


def test_type_checkers_are_told_that_there_are_types():
    assert files("dspex").joinpath("py.typed").is_file()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(HOUSE)))
def test_nothing_unpickles_or_evaluates(file):
    source = file.read_text()
    assert not re.search(r"^\s*(import|from) (pickle|marshal|shelve)\b", source, re.MULTILINE)
    assert not re.search(r"(?<![\w.])(eval|exec)\(", source)

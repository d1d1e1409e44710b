"""The page about modules is complete, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dspex.modules import Module
from dspex.modules.predictors import DspyModule
from dspex.modules.settings import ADAPTERS, PARAMETERS, Settings

PAGE = (Path(__file__).parents[2] / "docs" / "modules.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w[^\n]*)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
OURS = {name: cls for name, cls in Module.registry.items() if cls.__module__.startswith("dspex.")}

BEFORE = """
import dspex.lm
from dspy.utils.dummies import DummyLM

answer = {"reasoning": "r", "answer": "4", "plan": "p", "rationale": "r"}
answer |= {"next_thought": "t", "next_tool_name": "finish", "next_tool_args": "{}"}
lm = DummyLM([answer] * 100)
dspex.lm.default = lambda: lm
import warnings
warnings.filterwarnings("ignore", "ProgramOfThought is deprecated")
"""
"""Lets the examples ask nobody."""


@pytest.mark.parametrize("name", OURS)
def test_every_module_has_a_section_with_an_example(name):
    section = SECTIONS[name]
    assert "```python" in section
    own = OURS[name].own if issubclass(OURS[name], DspyModule) else {}
    assert [one for one in own if f"`{one}`" not in section + SECTIONS["BestOfN"]] == []


def test_every_setting_is_told():
    told = SECTIONS["Settings"]
    assert [name for name in Settings.__annotations__ if f"`{name}`" not in told] == []
    assert [name for name in ADAPTERS if f'`"{name}"`' not in told] == []
    assert set(PARAMETERS) | {"adapter", "demos", "instructions", "lm", "model", "stream"} == set(
        Settings.__annotations__
    )


def test_every_example_runs(script):
    examples = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(examples) > len(OURS)
    script(BEFORE + "\n".join(examples))

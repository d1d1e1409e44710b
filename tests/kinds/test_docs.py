"""The page about kinds is complete, and its examples run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dspex.kinds import Kind

PAGE = (Path(__file__).parents[2] / "docs" / "kinds.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (\w[^\n]*)\n(.*?)(?=^## |\Z)", PAGE, flags=re.MULTILINE | re.DOTALL))
OURS = [kind for kind in Kind.registry.values() if kind.__module__.startswith("dspex.")]


@pytest.mark.parametrize("kind", OURS)
def test_every_kind_has_a_section_that_names_its_constraints(kind):
    section = SECTIONS[kind.__name__]
    assert f"Wire name `{kind.name}`." in section
    told = {field.name for field in kind.__attrs_attrs__ if field.init} - {"class_name", "schema"}
    assert not [name for name in told if f"`{name}`" not in section and f"`{name}=" not in section]
    assert "```python" in section


def test_every_example_runs():
    examples = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert len(examples) > len(OURS)
    # In a process of its own: the example of an own kind is registered for good.
    script = "\n".join(examples)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)

"""What the page about optimizers shows works, one block after another."""

import re
import subprocess
import sys
from pathlib import Path

from dspex.optimizers.proposals import TELEPROMPTERS

PAGE = Path(__file__).parents[2] / "docs" / "optimizers.md"


def test_the_code_that_is_shown_runs(tmp_path):
    script = tmp_path / "shown.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)))
    subprocess.run([sys.executable, script], check=True, timeout=100, cwd=tmp_path)


def test_every_optimizer_has_its_section():
    page = PAGE.read_text()
    for name in ("OptunaOptimizer", "DSPyOptimizer", "JointOptimizer"):
        assert f"## {name}" in page
    for name in TELEPROMPTERS:
        assert f"`{name}`" in page

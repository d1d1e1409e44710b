"""Print again what the docs show: the terminal of `make demo` and the tables of the benchmark."""

import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).parent


def run(script: str, *arguments: str | Path) -> None:
    """Run one of our scripts, and stop if it fails."""
    subprocess.run([sys.executable, DOCS.parent / script, *arguments], check=True)


run("examples/02_research_agent.py", "--svg", DOCS / "demo.svg")
run("benchmarks/inprocess.py", "--docs", DOCS / "performance.md")

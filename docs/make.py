"""
Print again what the docs show; without a name, all of it.

    python docs/make.py api       api.md: the public names, out of their docstrings
    python docs/make.py demo      demo.svg: the terminal of `make demo`
    python docs/make.py tables    the tables of all benchmarks, which take a quarter of an hour
"""

import argparse
import subprocess
import sys
from pathlib import Path

import api

DOCS = Path(__file__).parent


def run(script: str, *arguments: str | Path) -> None:
    """Run one of our scripts, and stop if it fails."""
    subprocess.run([sys.executable, DOCS.parent / script, *arguments], check=True)


TABLES = {
    "inprocess": "performance",
    "sqlite": "stores",
    "remote": "remote",
    "pool": "pool",
    "distributed": "distributed",
}
"""Where the tables of each benchmark are."""

PARTS = {
    "api": lambda: (DOCS / "api.md").write_text(api.page(), encoding="utf-8"),
    "demo": lambda: run("examples/02_research_agent.py", "--svg", DOCS / "demo.svg"),
    "tables": lambda: [
        run(f"benchmarks/{name}.py", "--docs", DOCS / f"{page}.md") for name, page in TABLES.items()
    ],
}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=PARTS)
    chosen = parser.parse_args().part
    for part in [chosen] if chosen else PARTS:
        PARTS[part]()

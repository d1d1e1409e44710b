"""What is registered has its section in the docs, and what the docs show works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dspex import DspexError, Session
from dspex.kinds import Kind
from dspex.modules import Module
from dspex.stores import SCHEMES

DOCS = Path(__file__).parent.parent / "docs"
README = DOCS.parent / "README.md"


def headings(page: str) -> set[str]:
    return set(re.findall(r"^#+ (.+)$", (DOCS / page).read_text(), re.MULTILINE))


def ours(registry):
    return {name: cls.__name__ for name, cls in registry.items() if cls.__module__.startswith("dspex.")}


@pytest.mark.parametrize("kind", sorted(ours(Kind.registry).values()))
def test_a_kind_has_its_section(kind):
    assert kind in headings("kinds.md")


@pytest.mark.parametrize("module", sorted(ours(Module.registry)))
def test_a_module_has_its_section(module):
    assert module in headings("modules.md")


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_a_store_has_its_section(scheme):
    assert scheme in headings("stores.md")


@pytest.mark.parametrize("code", sorted(DspexError.by_code))
def test_an_error_says_what_it_is_for(code):
    assert DspexError.by_code[code].__doc__


def test_the_links_of_the_pages_lead_somewhere():
    for page in [README, README.parent / "CONTRIBUTING.md", *DOCS.glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", [README, DOCS / "stores.md", DOCS / "lm.md"], ids=lambda page: page.name)
def test_the_code_that_is_shown_runs(page, tmp_path):
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        script = tmp_path / "shown.py"
        script.write_text(block)
        subprocess.run([sys.executable, script], check=True, timeout=100, cwd=tmp_path)


def test_the_glossary_has_the_words_that_the_session_uses():
    words = (DOCS / "glossary.md").read_text()
    for verb in ("fork", "claim", "tag", "watch", "commit", "version", "revision"):
        assert hasattr(Session, verb) or verb in {"commit", "version", "revision"}
        assert f"| {verb} |" in words

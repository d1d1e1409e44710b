"""What is registered has its section in the docs, and what the docs show works."""

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from dspex import DspexError, Session
from dspex.changes import LOSSLESS_QUEUE
from dspex.dispatch import NESTING
from dspex.kinds import Kind
from dspex.modules import Module
from dspex.stores import SCHEMES, Ledger, Store
from dspex.stores.base import HISTORY, HISTORY_PER_NAME, TAGS

DOCS = Path(__file__).parent.parent / "docs"
README = DOCS.parent / "README.md"


def headings(page: str) -> set[str]:
    lines = re.findall(r"^#+ (.+)$", (DOCS / page).read_text(), re.MULTILINE)
    return {name for line in lines for name in line.split(", ")}


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


@pytest.mark.parametrize("code", sorted(ours(DspexError.by_code)))
def test_an_error_says_what_it_is_for_and_is_in_the_table(code):
    error = DspexError.by_code[code]
    builtin = [f"`{parent.__name__}`" for parent in error.__bases__ if parent is not DspexError]
    row = f"| `{error.__name__}` | {''.join(builtin)}".rstrip()
    assert error.__doc__
    assert row in (DOCS / "sessions.md").read_text()


@pytest.mark.parametrize("contract", [Store, Ledger])
def test_who_writes_a_store_is_told_every_verb(contract):
    (line,) = re.findall(rf"^\| `{contract.__name__}` \|.*$", (DOCS / "stores.md").read_text(), re.MULTILINE)
    required, default = line.split("|")[2:4]
    verbs = {name for name, verb in vars(contract).items() if callable(verb) or isinstance(verb, property)}
    public = {name for name in verbs | vars(contract).get("__annotations__", {}).keys() if name[0] != "_"}
    assert set(re.findall(r"`(\w+)`", required)) == contract.__abstractmethods__
    assert public & vars(contract).keys() - contract.__abstractmethods__ <= set(
        re.findall(r"`(\w+)`", default)
    )


def test_the_page_of_the_api_is_current():
    spec = importlib.util.spec_from_file_location("api", DOCS / "api.py")
    api = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(api)
    assert api.page() == (DOCS / "api.md").read_text(), "print it again: python docs/make.py api"


def test_the_readme_leads_to_every_page():
    linked = set(re.findall(r"\]\(docs/([\w.-]+)\)", README.read_text()))
    assert {page.name for page in DOCS.glob("*.md")} <= linked


def test_the_links_of_the_pages_lead_somewhere():
    for page in [README, README.parent / "CONTRIBUTING.md", *DOCS.glob("*.md")]:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} links to {link}"


def blocks(page):
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


class RefusalsHappen(ast.NodeTransformer):
    """A page shows a refusal by `try` and `except`: where nothing is refused, it must not go on."""

    def visit_Try(self, node):
        self.generic_visit(node)
        node.orelse = ast.parse("raise AssertionError('nothing was refused')").body
        return node


def run(script, folder, *options):
    tree = RefusalsHappen().visit(ast.parse(script))
    (folder / "shown.py").write_text(ast.unparse(ast.fix_missing_locations(tree)))
    subprocess.run([sys.executable, *options, "shown.py"], check=True, timeout=100, cwd=folder)


@pytest.mark.parametrize("page", [README, DOCS / "stores.md", DOCS / "lm.md"], ids=lambda page: page.name)
def test_every_block_that_is_shown_runs(page, tmp_path):
    for block in blocks(page):
        run(block, tmp_path)


@pytest.mark.parametrize("page", ["programs.md", "sessions.md", "watching.md"])
def test_what_a_page_shows_runs_from_its_top_to_its_end(page, tmp_path):
    run("\n".join(blocks(DOCS / page)), tmp_path, "-W", "error")


def test_the_limits_that_are_told_are_those_of_the_code():
    sessions, watching = (DOCS / "sessions.md").read_text(), (DOCS / "watching.md").read_text()
    assert f"the newest {HISTORY:,} changes, and at least {HISTORY_PER_NAME} of each variable" in sessions
    assert f"a session has at most {TAGS}" in sessions
    assert f"after {LOSSLESS_QUEUE:,} that wait" in watching
    assert f"after {NESTING}, with `LimitExceeded`" in watching


def test_the_glossary_has_the_words_that_the_session_uses():
    words = (DOCS / "glossary.md").read_text()
    for verb in ("fork", "claim", "tag", "watch", "commit", "version", "revision"):
        assert hasattr(Session, verb) or verb in {"commit", "version", "revision"}
        assert f"| {verb} |" in words

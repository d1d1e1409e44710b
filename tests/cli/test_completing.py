"""What a shell is offered."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from dspex import Session
from dspex.cli import completing
from dspex.cli.app import app


@pytest.fixture
def offered(url):
    """What bash is offered for the last of some words."""

    def ask(*words, **environment):
        environment = {
            "DSPEX_STORE": url,
            "DSPEX_SESSION": "demo",
            "_DSPEX_COMPLETE": "complete_bash",
            "COMP_WORDS": " ".join(("dspex", *words)),
            "COMP_CWORD": str(len(words)),
            **environment,
        }
        result = CliRunner().invoke(app, env=environment, prog_name="dspex")
        assert (result.exit_code, result.stderr) == (0, "")
        return result.stdout.split()

    return ask


def test_commands_and_options(offered):
    assert offered("h") == ["history"]
    assert offered("get", "note", "--js") == ["--json"]


def test_variables(offered):
    assert offered("get", "te") == ["temperature"]
    assert offered("watch", "note", "st") == ["style", "stops"]
    assert offered("set", "note=x", "te") == ["temperature="]
    assert offered("diff", "--name", "pr") == ["prompt"]


def test_sessions_and_tags(offered, url):
    with Session("demo-2", store=url) as other:
        other.tag("shipped")
    assert offered("list", "--session", "demo-") == ["demo-2"]
    assert offered("copy", "d") == ["demo", "demo-2"]
    assert offered("rollback", "--session", "demo-2", "--to", "s") == ["shipped"]


@pytest.mark.parametrize(
    "store", ["sqlite:///missing.db", "nonsense", "grpc+unix:///missing/s", "memory://", None]
)
def test_nothing_where_nothing_can_be_had(offered, store, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert offered("get", "te", DSPEX_STORE=store) == []
    assert list(tmp_path.glob("missing*")) == []


def test_no_sessions_of_a_store_that_cannot_be_opened(offered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for store in ("sqlite:///missing.db", "nonsense", "memory://"):
        assert offered("list", "--session", "d", DSPEX_STORE=store) == []
    assert list(tmp_path.glob("missing*")) == []


def test_a_server_is_not_waited_for_long(offered, monkeypatch):
    asked = []
    monkeypatch.setattr(completing, "opened", lambda url, _session: asked.append(url))
    for store in ("grpc://a:1", "grpc+unix:///s?tls=on", "grpc://a:1?deadline=9", "sqlite:///x.db"):
        offered("get", "te", DSPEX_STORE=store)
    assert asked == [
        "grpc://a:1?deadline=1",
        "grpc+unix:///s?tls=on&deadline=1",
        "grpc://a:1?deadline=9",
        "sqlite:///x.db",
    ]


def test_nothing_while_another_process_has_the_file(offered, command, url):
    pytest.importorskip("grpc")
    server = command("serve", "--store", url)
    server.line()
    assert offered("get", "te") == []

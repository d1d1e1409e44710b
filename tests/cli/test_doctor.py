"""The command that looks whether something is broken."""

from __future__ import annotations

import email.message
import os
import re
from importlib import metadata

import pytest

from dspex import lm
from dspex.errors import NoLanguageModel


@pytest.fixture(autouse=True)
def model(monkeypatch):
    """A language model that nobody asks, found without loading any."""

    class Model:
        model = "openai/of-the-test"

    monkeypatch.setattr(lm, "default", Model)


@pytest.fixture
def installed(monkeypatch):
    """Pretend that dspex is installed, and wants these packages."""

    def pretend(*requirements, extras=()):
        about = email.message.Message()
        for extra in extras:
            about["Provides-Extra"] = extra
        monkeypatch.setattr(metadata, "metadata", lambda _name: about)
        monkeypatch.setattr(metadata, "requires", lambda _name: list(requirements))

    return pretend


def found(done):
    return {line["about"]: (line["state"], line["words"]) for line in done.json}


def test_what_is_there_is_ok(dspex_, url, installed):
    installed("attrs>=24.2", "pytest>=1; extra == 'testing'", extras=["testing"])
    looked = found(dspex_("doctor", "--json"))
    assert {state for state, _ in looked.values()} == {"ok"}
    assert looked["needs"][1] == f"attrs {metadata.version('attrs')}"
    assert looked["extra testing"][1] == f"pytest {metadata.version('pytest')}"
    assert looked["model"][1] == "openai/of-the-test"
    assert re.fullmatch(rf"{re.escape(url)}, sessions: 1, listed in \d+\.\d\d ms", looked["store"][1])
    assert looked["durability"][1].startswith("fast (synchronous=NORMAL)")
    assert f"process {os.getpid()} has the lock" in looked["sqlite"][1]
    assert looked["session"][1].startswith("demo, variables: 7, at revision ")


def test_lines_are_for_people(dspex_, installed):
    installed("attrs")
    lines = dspex_("doctor").out.splitlines()
    assert all(re.match(r"(ok|lacking|broken) +[a-z ]+: ", line) for line in lines)


def test_an_extra_that_is_not_installed_is_lacking_only(dspex_, installed):
    installed("no-such-package>=1; extra == 'far'", extras=["far"])
    assert found(dspex_("doctor", "--json"))["extra far"] == (
        "lacking",
        "no-such-package not installed: pip install 'dspex[far]', or '.[far]' in a clone",
    )


def test_a_package_that_is_too_old_or_missing_is_broken(dspex_, installed):
    installed("no-such-package>=1", "attrs>=9999; extra == 'far'", extras=["far"])
    looked = found(dspex_("doctor", "--json", code=1))
    assert looked["needs"] == ("broken", "no-such-package not installed")
    assert looked["extra far"] == ("broken", f"attrs {metadata.version('attrs')} must be >=9999")


def test_an_extra_of_dspex_itself_is_looked_at_on_its_own_line(dspex_, installed):
    installed("attrs", "dspex[near]; extra == 'all'", "attrs; extra == 'near'", extras=["all", "near"])
    looked = found(dspex_("doctor", "--json"))
    assert looked["extra near"] == ("ok", f"attrs {metadata.version('attrs')}")
    assert "dspex" not in looked["extra all"][1]


def test_a_folder_that_nobody_has_installed_lacks_what_says_its_extras(dspex_, monkeypatch):
    def unknown(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "metadata", unknown)
    looked = found(dspex_("doctor", "--json"))
    assert looked["extras"] == ("lacking", "dspex runs from a folder that nobody has installed")
    assert "needs" not in looked


def test_the_needs_of_other_systems_are_not_ours(dspex_, installed):
    installed("no-such-package; sys_platform == 'none'", "attrs; python_version > '3'")
    assert found(dspex_("doctor", "--json"))["needs"][0] == "ok"


def test_a_model_is_not_needed_by_all(dspex_, installed, monkeypatch):
    installed()

    def default():
        raise NoLanguageModel("No language model was found.")

    monkeypatch.setattr(lm, "default", default)
    assert found(dspex_("doctor", "--json"))["model"] == ("lacking", "No language model was found.")


def test_without_a_store_none_is_looked_at(dspex_, installed):
    installed()
    looked = found(dspex_("doctor", "--json", DSPEX_STORE=None, DSPEX_SESSION=None))
    assert "store" not in looked
    looked = found(dspex_("doctor", "--json", DSPEX_SESSION=None))
    assert (looked["store"][0], "session" in looked) == ("ok", False)


def test_a_store_or_session_that_is_not_there_is_broken(dspex_, installed, tmp_path):
    installed()
    missing = dspex_("doctor", "--json", "--store", f"sqlite:///{tmp_path}/missing.db", code=1)
    assert found(missing)["store"] == ("broken", f"{tmp_path}/missing.db is not there.")
    assert found(dspex_("doctor", "--json", "--session", "dmo", code=1))["session"][0] == "broken"


def test_who_has_a_file_open_is_named(dspex_, installed, command, url):
    pytest.importorskip("grpc")
    installed()
    server = command("serve", "--store", url, "--json")
    server.line()
    state, words = found(dspex_("doctor", "--json", code=1))["store"]
    assert (state, f"is in use by process {server.process.pid}" in words) == ("broken", True)


def test_a_server_is_asked(dspex_, installed, served, server):
    installed()
    looked = found(dspex_("doctor", "--json", "--store", server.url))
    assert looked["store"][1].startswith(f"{server.url}, sessions: 1, ")
    assert looked["session"][0] == "ok"

"""The command that stays."""

from __future__ import annotations

import json
import re

import pytest

from dspex import Revision


@pytest.fixture
def watching(command, server, served):
    """Start `dspex watch` in a process of its own; it watches when this returns."""

    def start(*arguments):
        process = command("watch", *arguments, "--store", server.url, "--session", "demo")
        assert process.line() == f"watching session 'demo' from revision {served.revision}"
        return process

    return start


def test_changes_are_printed_as_they_come_until_ctrl_c(served, watching):
    process = watching()
    served.set("temperature", 0.2, {"reason": "colder"}, source="ada")
    assert re.fullmatch(r"\d\d:\d\d:\d\d temperature 0.7 -> 0.2 by ada: colder", process.line())
    served.set("key", "sk-canary-two")
    assert process.line().endswith(" key '•••' -> '•••' by tests")
    served.update({"note": "\x1b[2J", "verbose": True})
    assert process.line().endswith(r" note '' -> '\x1b[2J' by tests")
    assert process.line().endswith(" verbose False -> True by tests")
    assert (process.end(), process.rest()) == (130, [])


def test_json_has_one_object_a_line(served, watching):
    process = watching("--json", "te*", "key")
    change = served.set("temperature", 0.2)
    served.set("note", "not watched")
    served.set("key", "sk-canary-two")
    assert json.loads(process.line()) == {
        "event": "change",
        "name": "temperature",
        "value": 0.2,
        "old": 0.7,
        "version": 1,
        "revision": str(change.revision),
        "source": "tests",
        "metadata": None,
        "time": change.time,
    }
    secret = json.loads(process.line())
    assert (secret["value"], secret["old"], secret["secret"]) == (None, None, True)
    assert (process.end(), process.rest()) == (130, [])


def test_a_session_that_is_deleted_is_not_watched_any_more(served, watching):
    process = watching()
    served.delete()
    assert process.rest() == ["session 'demo' was deleted. Open it again to start anew."]
    assert process.code() == 0


def test_it_ends_after_as_many_changes_as_asked(served, watching):
    process = watching("temperature", "--count", 2)
    for value in (0.1, 0.2, 0.3):
        served.set("temperature", value)
    assert [line.split()[-3] for line in process.rest()] == ["0.1", "0.2"]
    assert process.code() == 0


def test_it_goes_on_after_a_revision(dspex_, opened):
    first = opened(lambda session: session.set("temperature", 0.1))
    opened(lambda session: session.set("note", "x"))
    opened(lambda session: session.set("temperature", 0.2))
    for since in (str(first.revision), first.rev):
        done = dspex_("watch", "--since", since, "--count", 2, "--json")
        assert [json.loads(line)["name"] for line in done.out.splitlines()] == ["note", "temperature"]
        assert done.err == f"watching session 'demo' from revision {first.revision}\n"
    done = dspex_("watch", "temperature", "--since", 0, "--count", 2)
    assert [line.split()[2:5] for line in done.out.splitlines()] == [
        ["0.7", "->", "0.1"],
        ["0.1", "->", "0.2"],
    ]


def test_what_cannot_be_resumed_begins_with_what_is_now(command, server, served):
    served.set("temperature", 0.2)
    since = Revision("of-old", 1)
    arguments = ["--store", server.url, "--session", "demo", "--since", since, "--count", 1, "--json"]
    process = command("watch", "temperature", *arguments)
    assert process.line() == f"watching session 'demo' from revision {since}"
    snapshot = json.loads(process.line())
    assert (snapshot["event"], snapshot["revision"]) == ("snapshot", str(served.revision))
    assert [(one["name"], one["value"]) for one in snapshot["records"]] == [("temperature", 0.2)]
    served.set("temperature", 0.3)
    assert json.loads(process.line())["value"] == 0.3
    assert process.code() == 0

    process = command("watch", "temperature", *arguments[:-1])
    assert process.line() == f"watching session 'demo' from revision {since}"
    assert process.line() == "the changes since then are not all known any more; this is what is now:"
    assert process.line() == "temperature 0.3"
    served.set("temperature", 0.4)
    assert process.line().endswith(" temperature 0.3 -> 0.4 by tests")
    assert process.code() == 0


@pytest.mark.parametrize("since", ["", "x", ":", "-1", "a:", "1.5"])
def test_a_revision_is_a_number_or_has_its_history_in_front(dspex_, since):
    assert "is no revision" in dspex_("watch", f"--since={since}", code=2).err


def test_a_name_that_is_not_there_is_not_waited_for(dspex_):
    assert "Did you mean 'note'?" in dspex_("watch", "nte", code=1).err

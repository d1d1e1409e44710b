"""Commands that look."""

from __future__ import annotations

import pytest

from dspex import Float, Session, Tensor


def test_a_value_is_printed_alone(dspex_):
    assert dspex_("get", "temperature").out == "0.7\n"
    assert dspex_("get", "verbose").out == "false\n"
    assert dspex_("get", "prompt").out == "Answer {question}.\nBe brief.\n"
    assert dspex_("get", "stops").out == "[]\n"


def test_a_record_in_json(dspex_, opened):
    change = opened(lambda session: session.set("temperature", 0.2, {"reason": "colder"}, source="bob"))
    assert dspex_("get", "temperature", "--json").json == {
        "name": "temperature",
        "value": 0.2,
        "version": 1,
        "revision": str(change.revision),
        "source": "bob",
        "metadata": {"reason": "colder"},
        "time": change.time,
    }


def test_what_nobody_has_set_has_no_time(dspex_):
    record = dspex_("get", "note", "--json").json
    assert (record["version"], record["revision"], record["time"]) == (0, None, None)


def test_variables_are_listed_with_their_kinds(dspex_):
    lines = dspex_("list").out.splitlines()
    assert lines[0].split() == ["VARIABLE", "VALUE", "VERSION", "SET", "BY", "KIND"]
    assert lines[1].split(maxsplit=3) == ["temperature", "0.7", "0", "Float(min=0.0, max=1.5)"]
    assert len(lines) == 8


def test_a_listed_variable_says_in_json_what_may_be_set(dspex_):
    found = {one["name"]: one for one in dspex_("list", "--json").json}
    assert found["temperature"]["kind"] == {"kind": "float", "min": 0.0, "max": 1.5}
    assert found["temperature"]["initial"] == 0.7


def test_a_secret_is_nowhere(dspex_, opened):
    opened(lambda session: session.set("key", "sk-canary-0123456789 and more"))
    assert dspex_("get", "key").out == "'•••'\n"
    record = dspex_("get", "key", "--json").json
    assert (record["value"], record["secret"]) == (None, True)
    listed = dspex_("list", "--json").json[-1]
    assert (listed["value"], listed["initial"], listed["secret"]) == (None, None, True)
    (change,) = dspex_("history", "--json").json
    assert (change["value"], change["old"], change["secret"]) == (None, None, True)
    for command in (["list"], ["history"], ["history", "key"], ["diff", "0", "1", "--name", "key"]):
        dspex_(*command)
    assert dspex_("diff", "0", "--name", "key", "--json").json == [
        {"name": "key", "before": None, "after": None}
    ]


def test_sessions_are_listed(dspex_, url):
    with Session("other", store=url) as other:
        revision = str(other.revision)
    first, second = dspex_("sessions", "--json").json
    assert (first["id"], first["variables"]) == ("demo", 7)
    assert (second["id"], second["variables"], second["revision"]) == ("other", 0, revision)
    lines = dspex_("sessions").out.splitlines()
    assert [line.split()[0] for line in lines] == ["SESSION", "demo", "other"]


def test_history_is_oldest_first_and_can_be_cut(dspex_, opened):
    for value in (0.1, 0.2, 0.3):
        opened(lambda session, value=value: session.set("temperature", value, {"reason": f"to {value}"}))
    opened(lambda session: session.set("note", "x"))
    assert [one["value"] for one in dspex_("history", "--json").json] == [0.1, 0.2, 0.3, "x"]
    assert [one["value"] for one in dspex_("history", "temperature", "--limit", 2, "--json").json] == [
        0.2,
        0.3,
    ]
    line = dspex_("history", "--limit", 2).out.splitlines()[1]
    assert line.split()[2:] == ["temperature", "3", "0.2", "0.3", "tests", "to", "0.3"]


def test_what_is_not_there_is_refused_with_the_near_name(dspex_):
    done = dspex_("get", "temprature", code=1)
    assert done.err == "session 'demo' has no variable 'temprature'. Did you mean 'temperature'?\n"
    assert (
        dspex_("history", "nte", code=1).err == "session 'demo' has no variable 'nte'. Did you mean 'note'?\n"
    )


def test_a_refusal_in_json_has_code_and_facts(dspex_):
    assert dspex_("get", "temprature", "--json", code=1).refusal == {
        "code": "UNKNOWN_VARIABLE",
        "message": "session 'demo' has no variable 'temprature'. Did you mean 'temperature'?",
        "facts": {"owner": "session 'demo'", "name": "temprature"},
    }


@pytest.mark.parametrize(
    "arguments",
    [
        ["get", "note"],
        ["list"],
        ["history"],
        ["set", "note=x"],
        ["watch"],
        ["tag", "t"],
        ["diff", "t"],
        ["export"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_command_makes_a_session_or_a_file_by_a_slip(dspex_, url, tmp_path, arguments):
    assert dspex_(*arguments, "--session", "dmo", code=1).err.startswith("the store has no session 'dmo'.")
    assert [one["id"] for one in dspex_("sessions", "--json").json] == ["demo"]
    missing = tmp_path / "missing.db"
    done = dspex_(*arguments, "--store", f"sqlite:///{missing}", code=3)
    assert done.err == f"{missing} is not there.\n"
    assert list(tmp_path.glob("missing*")) == []


def test_the_memory_of_another_process_is_refused(dspex_):
    assert dspex_("get", "note", "--store", "memory://", code=3).err.startswith(
        "memory:// is in the memory of one"
    )


def test_a_point_is_compared_with_now(dspex_, opened):
    opened(lambda session: session.tag("shipped"))
    assert dspex_("diff", "shipped").out == ""
    opened(lambda session: session.update({"temperature": 0.2, "style": None}))
    assert dspex_("diff", "shipped").out == "temperature 0.7 -> 0.2\nstyle 'brief' -> None\n"
    assert dspex_("diff", "shipped", "--name", "style", "--json").json == [
        {"name": "style", "before": "brief", "after": None}
    ]


def test_two_tags_and_two_versions_are_compared(dspex_, opened):
    for number, value in enumerate((0.1, 0.2, 0.3)):
        opened(lambda session, value=value: session.set("temperature", value))
        opened(lambda session, number=number: session.tag(f"t{number}"))
    opened(lambda session: session.set("temperature", 0.9))
    assert dspex_("diff", "t0", "t2").out == "temperature 0.1 -> 0.3\n"
    assert dspex_("diff", 1, 2, "--name", "temperature").out == "temperature 0.1 -> 0.2\n"
    assert dspex_("diff", 3, "--name", "temperature").out == "temperature 0.3 -> 0.9\n"
    assert dspex_("diff", 3, 3, "--name", "temperature").out == ""


def test_two_sessions_are_compared(dspex_, url, tmp_path):
    for store, id_ in ((url, "staging"), (f"sqlite:///{tmp_path}/old.db", "demo")):
        with Session(id_, store=store) as other:
            other.register("temperature", Float(min=0.0, max=1.5), initial=0.1)
            other.register("fresh", Float(), initial=-0.0)
    expected = "temperature 0.7 -> 0.1\nverbose False -> (not there)\n"
    assert dspex_("diff", "--other", "staging").out.startswith(expected)
    done = dspex_("diff", "--other-store", f"sqlite:///{tmp_path}/old.db")
    assert done.out.startswith(expected)
    assert done.out.endswith("fresh (not there) -> -0.0\n")
    last = dspex_("diff", "--other", "staging", "--json").json[-1]
    assert last == {"name": "fresh", "after": -0.0}


def test_text_of_several_lines_is_compared_by_lines(dspex_, opened):
    opened(lambda session: session.set("prompt", "Answer {question}.\nBe polite."))
    assert dspex_("diff", 0, "--name", "prompt").out.splitlines() == [
        "prompt",
        "  @@ -1,2 +1,2 @@",
        "   Answer {question}.",
        "  -Be brief.",
        "  +Be polite.",
    ]


def test_values_differ_when_their_bits_do(dspex_, opened):
    opened(lambda session: session.register("x", Float(allow_nan=True), initial=0.0))
    opened(lambda session: session.set("x", -0.0))
    opened(lambda session: session.set("x", float("nan")))
    assert dspex_("diff", 0, 1, "--name", "x").out == "x 0.0 -> -0.0\n"
    assert dspex_("diff", 2, 2, "--name", "x").out == ""
    assert dspex_("get", "x", "--json").json["value"] == "NaN"


def test_a_diff_needs_something_to_compare(dspex_):
    assert "give FROM, or --other" in dspex_("diff", code=2).err
    assert "give its --name" in dspex_("diff", 3, code=2).err
    assert dspex_("diff", "nope", code=1).err == "session 'demo' has no tag 'nope'.\n"


def test_arrays_are_lists_in_json(dspex_, opened):
    pytest.importorskip("numpy")
    opened(lambda session: session.register("t", Tensor(), initial=[[1.0, float("nan")], [2.0, 3.0]]))
    assert dspex_("get", "t").out == "[[1.0, NaN], [2.0, 3.0]]\n"
    assert dspex_("get", "t", "--json").json["value"] == [[1.0, "NaN"], [2.0, 3.0]]
    opened(lambda session: session.set("t", [1j]))
    assert dspex_("get", "t", "--json").json["value"] == [[0.0, 1.0]]

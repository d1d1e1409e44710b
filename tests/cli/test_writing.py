"""Commands that change a session."""

from __future__ import annotations

import getpass
import stat

import pytest

from dspex import Float, Session


def test_values_are_read_by_their_kinds(dspex_, opened):
    done = dspex_("set", "temperature=0.25", "verbose=yes", "style=1", 'stops=["a", "b"]', "note= x=1 ")
    assert done.out.splitlines() == [
        "temperature 0.7 -> 0.25 by ada",
        "verbose False -> True by ada",
        "style 'brief' -> 1 by ada",
        "stops [] -> ['a', 'b'] by ada",
        "note '' -> ' x=1 ' by ada",
    ]
    values = opened(lambda session: dict(session.snapshot()))
    assert (values["temperature"], values["verbose"], values["style"]) == (0.25, True, 1)
    assert (values["stops"], values["note"]) == (("a", "b"), " x=1 ")


def test_several_values_are_one_commit(dspex_):
    answer = dspex_("set", "temperature=0.25", "verbose=yes", "--json").json
    assert {change["revision"] for change in answer["changes"]} == {answer["revision"]}
    assert [(one["name"], one["old"], one["value"]) for one in answer["changes"]] == [
        ("temperature", 0.7, 0.25),
        ("verbose", False, True),
    ]


@pytest.mark.parametrize(
    "bad", ["temperature=2", "temperature=warm", "verbose=perhaps", "nte=x", "prompt={a.b}"]
)
def test_one_refused_value_refuses_all(dspex_, opened, bad):
    before = opened(lambda session: session.revision)
    done = dspex_("set", "note=x", bad, code=1)
    assert done.out == ""
    assert "in session 'demo'" in done.err or "session 'demo' has no" in done.err
    assert opened(lambda session: (session.revision, session.get("note"))) == (before, "")


def test_who_and_why_are_kept(dspex_, opened):
    out = dspex_("set", "note=x", "--reason", "said so", "--metadata", '{"trial": 7}', "--source", "bob").out
    assert out == """note '' -> 'x' by bob: {"reason": "said so", "trial": 7}\n"""
    record = opened(lambda session: session.record("note"))
    assert (record.source, dict(record.metadata)) == ("bob", {"reason": "said so", "trial": 7})
    assert dspex_("set", "note=y", "--reason", "said so").out == "note 'x' -> 'y' by ada: said so\n"


def test_who_is_logged_in_sets_when_nobody_says(dspex_, monkeypatch):
    monkeypatch.setenv("LOGNAME", "carol")
    assert dspex_("set", "note=x", DSPEX_SOURCE=None).out == "note '' -> 'x' by carol\n"


def test_a_user_without_a_name_sets_under_the_name_of_the_process(dspex_, monkeypatch):
    def nobody():
        raise OSError("No username set in the environment")

    monkeypatch.setattr(getpass, "getuser", nobody)
    said = dspex_("set", "note=x", DSPEX_SOURCE=None).out
    assert said.startswith("note '' -> 'x' by ")
    assert dspex_("get", "note", "--json").json["source"] == said.split()[-1]


def test_metadata_must_be_an_object(dspex_):
    for bad in ("[1]", "{", "7"):
        assert "is no JSON object" in dspex_("set", "note=x", "--metadata", bad, code=2).err


def test_an_expected_version_must_be_the_present_one(dspex_):
    assert dspex_("set", "temperature=0.1", "--expect", 0).code == 0
    done = dspex_("set", "temperature=0.2", "--expect", 0, "--json", code=4)
    assert done.refusal["code"] == "VERSION_CONFLICT"
    assert (done.refusal["facts"]["version"], done.refusal["facts"]["expected"]) == (1, 0)


def test_versions_of_several_names(dspex_, opened):
    dspex_("set", "temperature=0.1", "note=x", "--expect", "temperature=0", "--expect", "note=0")
    dspex_("set", "temperature=0.2", "note=y", "--expect", "note=0", code=4)
    assert opened(lambda session: session.get("temperature")) == 0.1
    dspex_("set", "temperature=0.2", "note=y", "--expect", "note=1")


@pytest.mark.parametrize(
    "arguments",
    [
        ["note"],
        ["note=x", "note=y"],
        ["note=-", "prompt=-"],
        ["note=@missing.txt"],
        ["note=x", "--expect", "old"],
        ["note=x", "--expect", "prompt=0"],
        ["note=x", "--expect", "0", "--expect", "1"],
        ["note=x", "temperature=0", "--expect", "1"],
        [],
    ],
    ids=str,
)
def test_slips_are_told_from_refusals(dspex_, opened, arguments):
    before = opened(lambda session: session.revision)
    assert dspex_("set", *arguments, code=2).out == ""
    assert opened(lambda session: session.revision) == before


@pytest.mark.parametrize("text", ["", "x", "x\n", "x\r\n", "\r", "ä\0\x1b[31m\n\ny", "@x", "-"])
def test_what_get_prints_set_reads(dspex_, opened, tmp_path, text):
    opened(lambda session: session.set("note", text))
    printed = dspex_("get", "note").out.encode()
    assert printed == f"{text}\n".encode().replace(b"\r\n", b"\n")  # the runner reads with universal newlines
    exact = f"{text}\n".encode()
    opened(lambda session: session.set("note", "other"))
    dspex_("set", "note=-", stdin=exact)
    assert opened(lambda session: session.get("note")) == text
    opened(lambda session: session.set("note", "other"))
    (tmp_path / "note.txt").write_bytes(exact)
    dspex_("set", f"note=@{tmp_path}/note.txt")
    assert opened(lambda session: session.get("note")) == text


def test_a_file_must_be_text(dspex_, tmp_path):
    (tmp_path / "note.txt").write_bytes(b"\xff")
    assert "is not text in UTF-8" in dspex_("set", f"note=@{tmp_path}/note.txt", code=2).err
    assert "cannot be read" in dspex_("set", f"note=@{tmp_path}", code=2).err


def test_literal_values_read_nothing(dspex_, opened):
    dspex_("set", "note=@/etc/passwd", "prompt=-", "--literal")
    assert opened(lambda session: (session.get("note"), session.get("prompt"))) == ("@/etc/passwd", "-")


def test_a_secret_is_set_and_not_said(dspex_, opened):
    assert dspex_("set", "key=-", stdin="other secret\n").out == "key '•••' -> '•••' by ada\n"
    assert opened(lambda session: session.get("key")) == "other secret"
    assert "other secret" not in str(dspex_("set", "key=other secret", "--json").json)


def test_a_claim_of_somebody_else_is_a_conflict(dspex_, opened):
    opened(lambda session: session.claim(["temperature"], owner="optimizer", ttl=3600))
    done = dspex_("set", "temperature=0.1", "--json", code=4)
    assert done.refusal["code"] == "CLAIMED"


def test_what_others_wrote_does_not_reach_the_terminal(dspex_, opened):
    opened(lambda session: session.set("note", "\x1b[2J", {"reason": "\x1b]0;x\a"}, source="\x1b[31mred\n"))
    for command in (["list"], ["history"], ["set", "note=y"], ["rollback", "note", 1]):
        out = dspex_(*command).out
        assert "\x1b" not in out
        assert "\a" not in out
    (line,) = dspex_("history", "note", "--limit", 1).out.splitlines()[1:]
    assert "'\\x1b[2J'" in line


def test_rolling_back_one_variable(dspex_, opened):
    for value in (0.1, 0.2):
        dspex_("set", f"temperature={value}")
    assert dspex_("rollback", "temperature", 1).out == 'temperature 0.2 -> 0.1 by ada: {"rollback": 1}\n'
    assert opened(lambda session: session.record("temperature").version) == 3
    done = dspex_("rollback", "temperature", 99, "--json", code=1)
    assert done.refusal["code"] == "UNKNOWN_REVISION"


def test_rolling_back_to_a_tag(dspex_, opened):
    dspex_("tag", "shipped")
    dspex_("set", "temperature=0.1", "note=x")
    changes = dspex_("rollback", "--to", "shipped", "--source", "bob", "--json").json["changes"]
    assert {(one["name"], one["source"]) for one in changes} == {("temperature", "bob"), ("note", "bob")}
    assert opened(lambda session: session.get("temperature")) == 0.7


@pytest.mark.parametrize(
    "arguments", [[], ["note"], ["note", "1", "--to", "x"], ["note", "--to", "x"], ["note", "one"]], ids=str
)
def test_a_rollback_goes_to_one_place(dspex_, arguments):
    dspex_("rollback", *arguments, code=2)


def test_tags_are_given_and_listed(dspex_, opened):
    assert dspex_("tag", "--json").json == {}
    revision = dspex_("tag", "shipped", "--json").json["shipped"]
    assert revision == str(opened(lambda session: session.tags["shipped"]))
    assert dspex_("tag").out.splitlines() == ["TAG      REVISION", f"shipped  {revision}"]


def test_a_session_travels_in_a_document(dspex_, opened, url, tmp_path):
    dspex_("set", "temperature=0.1", "--reason", "colder")
    dspex_("tag", "shipped")
    file = tmp_path / "demo.json"
    assert dspex_("export", "--output", file).out == f"demo is in {file}\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert dspex_("export", "--output", file, "--json").json == {"session": "demo", "file": str(file)}
    assert dspex_("export").out == file.read_text().removesuffix("\n") + "\n"
    done = dspex_("import", file, "--as", "twin", "--json")
    assert (done.json["session"], done.json["secrets"]) == ("twin", ["key"])
    with Session("twin", store=url) as twin:
        assert (twin.get("temperature"), twin.record("temperature").metadata["reason"]) == (0.1, "colder")
        assert list(twin.tags) == ["shipped"]


def test_a_document_goes_into_a_session_that_is_there(dspex_, opened):
    document = dspex_("export").out
    dspex_("set", "temperature=0.1")
    dspex_("import", "-", "--into", "demo", stdin=document)
    assert opened(lambda session: session.record("temperature").source) == "ada"
    dspex_("set", "temperature=0.1")
    done = dspex_("import", "-", "--into", "demo", "--source", "bob", stdin=document)
    assert "key" in done.err
    record = opened(lambda session: session.record("temperature"))
    assert (record.value, record.version, record.source) == (0.7, 4, "bob")


def test_a_document_without_secrets_needs_no_remark(dspex_, url):
    with Session("plain", store=url) as session:
        session.register("n", Float(), initial=1.0)
    done = dspex_("import", "-", "--as", "twin", stdin=dspex_("export", "--session", "plain").out)
    assert (done.out.startswith("twin is at revision "), done.err) == (True, "")


def test_a_document_replaces_no_session(dspex_, opened):
    document = dspex_("export").out
    assert dspex_("import", "-", "--json", stdin=document, code=1).refusal["code"] == "SESSION_EXISTS"
    dspex_("import", "-", "--into", "demo", "--as", "x", stdin=document, code=2)
    dspex_("import", "-", "--as", "x", "--source", "bob", stdin=document, code=2)
    dspex_("import", "-", "--into", "dmo", stdin=document, code=1)
    assert [one["id"] for one in dspex_("sessions", "--json").json] == ["demo"]


def test_a_session_is_copied_to_another_store(dspex_, url, tmp_path):
    dspex_("set", "temperature=0.1")
    target = f"sqlite:///{tmp_path}/y.db"
    assert dspex_("copy", "demo", "--to", target).out.startswith(f"demo is in {target} at revision ")
    with Session("demo", store=target) as copied:
        assert (copied.get("temperature"), copied.record("temperature").source) == (0.1, "ada")
    assert (
        dspex_("copy", "demo", "--from", url, "--to", target, "--json", code=1).refusal["code"]
        == "SESSION_EXISTS"
    )
    assert dspex_("copy", "demo", "--to", target, "--as", "twin", "--json").json["session"] == "twin"
    dspex_("copy", "dmo", "--to", f"sqlite:///{tmp_path}/z.db", code=1)
    dspex_("copy", "demo", "--to", "memory://", code=3)


def test_a_server_that_is_not_there_is_missed_as_soon_as_by_other_commands(dspex_, tmp_path):
    pytest.importorskip("grpc")
    nowhere = f"grpc+unix://{tmp_path}/nothere/s?deadline=0.2"
    # Not the time that the pieces of a session may take, which is four times that.
    assert "nothere/s for 0.2 s" in dspex_("copy", "demo", "--to", nowhere, code=3).err

"""Servers that a shell starts."""

from __future__ import annotations

import json
import signal
import stat

import pytest

from dspex import Session, StoreUnavailable

pytest.importorskip("grpc")


@pytest.fixture
def socket(tmp_path):
    folder = tmp_path / "socket"
    folder.mkdir(mode=0o700)
    return f"unix://{folder}/s"


def test_a_server_serves_until_it_is_told_to_end(command, dspex_, url, socket, tmp_path):
    server = command("serve", "--store", url, "--listen", socket)
    assert server.line() == f"process {server.process.pid} serves {url} at grpc+{socket}"
    reach = ["--store", f"grpc+{socket}"]
    assert dspex_("set", "temperature=0.2", *reach).out == "temperature 0.7 -> 0.2 by ada\n"
    assert dspex_("get", "temperature", *reach).out == "0.2\n"
    in_use = dspex_("get", "temperature", code=3).err
    assert f"is in use by process {server.process.pid}" in in_use
    assert (server.end(signal.SIGINT), server.rest()) == (0, [])
    assert dspex_("get", "temperature").out == "0.2\n"


def test_a_server_says_in_json_where_it_is(command, url):
    server = command("serve", "--store", url, "--json")
    said = json.loads(server.line())
    assert (said["store"], said["pid"]) == (url, server.process.pid)
    with Session("demo", store=said["url"]) as session:
        assert session.get("temperature") == 0.7
    assert (server.end(signal.SIGTERM), server.rest()) == (0, [])


def test_a_server_that_would_be_open_does_not_start(dspex_):
    done = dspex_("serve", "--listen", "127.0.0.1:0", code=1)
    assert done.err.startswith("a server on '127.0.0.1:0' needs a certificate and tokens")


def test_a_server_needs_files_that_are_there(dspex_, tmp_path):
    here, missing = tmp_path / "here", tmp_path / "missing"
    here.touch()
    assert "go together" in dspex_("serve", "--tls-cert", here, code=2).err
    for option in ("--tls-cert", "--tls-key", "--token-file"):
        assert "does not exist" in " ".join(dspex_("serve", option, missing, code=2).err.split())


def test_only_one_server_has_a_file(command, dspex_, url, opened):
    def second(_session):
        server = command("serve", "--store", url)
        assert "is in use by process" in server.line()
        assert (server.code(), server.rest()) == (3, [])

    opened(second)


def test_tokens_that_a_shell_makes_let_in_who_has_them(command, dspex_, url, tmp_path):
    trustme = pytest.importorskip("trustme")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    tokens = tmp_path / "tokens"
    for name, grant in (("reader", "d*=read,watch"), ("operator", "demo=read,set,watch")):
        secret = dspex_("token", grant, "--add-to", tokens).out
        (tmp_path / name).write_text(secret)
        assert secret.strip() not in tokens.read_text()

    server = command(
        *("serve", "--store", url, "--listen", "127.0.0.1:0", "--token-file", tokens, "--json"),
        *("--tls-cert", tmp_path / "cert.pem", "--tls-key", tmp_path / "key.pem"),
    )
    reach = json.loads(server.line())["url"] + f"?ca={tmp_path}/ca.pem&token-file={tmp_path}/"
    assert dspex_("get", "temperature", "--store", f"{reach}reader").out == "0.7\n"
    refusal = dspex_("set", "temperature=0", "--store", f"{reach}reader", "--json", code=1).refusal
    assert refusal["code"] == "PERMISSION_DENIED"
    assert (
        dspex_("set", "temperature=0", "--store", f"{reach}operator").out == "temperature 0.7 -> 0.0 by ada\n"
    )
    assert server.end() == 0


def test_a_token_says_in_json_what_it_grants(dspex_, tmp_path):
    made = dspex_(
        "token", "a=read", "b*=set", "--add-to", tmp_path / "t", "--expires", "2030-01-31", "--json"
    ).json
    assert made["grants"] == ["a=read", "b*=set"]
    assert len(made["secret"]) == 43
    assert made["expires"] > 1_800_000_000
    assert stat.S_IMODE((tmp_path / "t").stat().st_mode) == 0o600


def test_a_grant_that_is_none_makes_no_token(dspex_, tmp_path):
    for bad in ("demo", "demo=write", "a/b=read"):
        dspex_("token", bad, "--add-to", tmp_path / "t", code=1)
    assert not (tmp_path / "t").exists()
    dspex_("token", "demo=read", "--add-to", tmp_path / "none" / "t", code=1)


def test_a_store_that_nobody_serves_is_unavailable(dspex_, tmp_path):
    done = dspex_("get", "note", "--store", f"grpc+unix://{tmp_path}/s?deadline=0.3", "--json", code=3)
    assert done.refusal["code"] == StoreUnavailable.code


def test_a_token_that_is_over_already_is_not_made(dspex_, tmp_path):
    refused = dspex_("token", "a=read", "--add-to", tmp_path / "t", "--expires", "2020-01-01", code=2)
    assert "2020-01-01 00:00:00 is over" in refused.err
    assert not (tmp_path / "t").exists()

"""Who may reach a server, and what for."""

from __future__ import annotations

import logging
import socket
import stat
import time
from pathlib import Path

import grpc
import pytest
import trustme

from dspex import Integer, InvalidDeclaration, LimitExceeded, PermissionDenied, Session, StoreUnavailable
from dspex.errors import DspexError
from dspex.rpc import Server, auth, service, status
from dspex.rpc._generated import dspex_pb2 as pb
from dspex.rpc.auth import Gate, Grant, Token, new_token, read_tokens, token_line
from dspex.rpc.extra import SERVICE
from dspex.rpc.limits import Limits
from dspex.rpc.listening import Tls, check_listen
from dspex.stores import MemoryStore
from dspex.wire import pack_error

ALL = "*=read,set,watch,admin"
UNARY = {
    "Open": pb.OpenRequest(session="demo"),
    "Commit": pb.CommitRequest(session="demo"),
    "Snapshot": pb.SnapshotRequest(session="demo"),
    "History": pb.HistoryRequest(session="demo"),
    "ListSessions": pb.ListRequest(),
    "DeleteSession": pb.DeleteRequest(session="demo"),
    "Subscribe": pb.SubscribeRequest(session="demo"),
}
CALLS = {
    "subscribe": UNARY["Subscribe"],
    "commit": UNARY["Commit"],
    "snapshot": UNARY["Snapshot"],
    "history": UNARY["History"],
    "delete_session": UNARY["DeleteSession"],
    "export": pb.ExportRequest(session="demo"),
    "hold": pb.HoldRequest(session="demo", token="x" * 32, step=pb.STEP_HOLD),
    "restore": pb.RestoreRequest(session="demo", token="x" * 32),
}
NEEDS = {
    "Open": "read", "Commit": "set", "Snapshot": "read", "History": "read", "ListSessions": "read",
    "DeleteSession": "admin", "Subscribe": "watch",
}  # fmt: skip


def test_every_request_of_the_service_has_a_rule():
    sessions = pb.DESCRIPTOR.services_by_name["Sessions"]
    requests = {method.input_type.name for method in sessions.methods}
    requests |= {field.message_type.name for field in pb.Call.DESCRIPTOR.oneofs_by_name["what"].fields}
    assert requests == set(service.RULES)
    assert {method.name for method in sessions.methods} - {"Link"} == set(UNARY)
    assert set(service.RULES.values()) <= {*auth.VERBS, auth.ANYONE}


def test_every_error_has_a_status_and_none_is_unknown_or_internal():
    assert set(status.STATUS) == set(DspexError.by_code)
    assert not {grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL} & set(status.STATUS.values())
    for made in DspexError.by_code.values():
        error = made("sentence", fact=1)
        assert status.unpacked(pack_error(error)).code == error.code


# ---- tokens --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", range(32))
def test_a_token_that_could_be_guessed_is_refused(length):
    with pytest.raises(InvalidDeclaration, match="at least 32"):
        Token.of("x" * length, ALL)


def test_a_token_file_keeps_what_it_is_given(tmp_path):
    file = tmp_path / "tokens"
    made = [new_token("prod-*=read,watch", "dev=set")[1], new_token(ALL, expires=2e9)[1]]
    file.write_text("# tokens\n\n" + "\n".join(map(token_line, made)) + "\n")
    file.chmod(0o600)
    assert tuple(made) == read_tokens(file)
    file.chmod(0o622)
    with pytest.raises(InvalidDeclaration, match="chmod 600"):
        read_tokens(file)


@pytest.mark.parametrize(
    "line",
    [
        "abc - *=read",
        "00" * 32,
        f"{'00' * 32} - *=fly",
        f"{'00' * 32} - a/b=read",
        f"{'00' * 32} x *=read",
    ],
)
def test_a_line_of_a_token_file_that_is_wrong_is_named(tmp_path, line):
    file = tmp_path / "tokens"
    file.write_text(f"# first\n{line}\n")
    file.chmod(0o600)
    with pytest.raises(InvalidDeclaration, match=r"line 2|a grant"):
        read_tokens(file)


def test_all_tokens_are_compared_whatever_the_first_says(monkeypatch):
    compared = []

    def compare(first, second):
        compared.append(first)
        return first == second

    monkeypatch.setattr(auth.hmac, "compare_digest", compare)
    secrets, tokens = zip(*(new_token(ALL) for _ in range(5)), strict=True)
    gate = Gate(tokens, 10)
    for secret in secrets:
        compared.clear()
        gate.caller([("authorization", f"Bearer {secret}")], "ipv4:1.2.3.4:5")
        assert len(compared) == len(tokens)


def test_who_tries_many_tokens_is_slowed_down_and_others_are_not():
    secret, token = new_token(ALL)
    gate = Gate([token], 10)
    refused = []
    for _ in range(50):
        with pytest.raises((PermissionDenied, LimitExceeded)) as raised:
            gate.caller([("authorization", "Bearer " + "x" * 43)], "ipv4:1.2.3.4:5")
        refused.append(type(raised.value))
    assert refused[:20] == [PermissionDenied] * 20
    assert refused[-20:] == [LimitExceeded] * 20
    assert gate.caller([("authorization", f"Bearer {secret}")], "ipv4:1.2.3.5:5").may("admin", "x")


def test_a_grant_is_for_a_pattern_and_some_verbs():
    _, token = new_token("prod-*=read,watch", "dev=set")
    caller = auth.Caller(token)
    may = {(v, s) for v in auth.VERBS for s in ("prod-1", "prod", "dev", "dev2") if caller.may(v, s)}
    assert may == {("read", "prod-1"), ("watch", "prod-1"), ("set", "dev")}
    assert str(Grant.parse("a*=watch,read")) == "a*=read,watch"


# ---- where a server may listen -------------------------------------------------------------------------


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("where", ["private", "open", "port"])
def test_a_server_starts_only_where_it_is_safe(tmp_path, where, tls, tokens):
    folder = tmp_path / where
    folder.mkdir(mode=0o700 if where == "private" else 0o755)
    listen = "127.0.0.1:0" if where == "port" else f"unix://{folder}/s"
    allowed = {"private": True, "open": tokens, "port": tls and tokens}[where]
    if allowed:
        check_listen(listen, tls=tls, tokens=tokens)
    else:
        with pytest.raises(PermissionDenied):
            check_listen(listen, tls=tls, tokens=tokens)


@pytest.mark.parametrize("listen", ["", "x", "unix://relative/s", ":80", "host:", "host:99999", "http://x:1"])
def test_an_address_that_is_none_is_refused(listen):
    with pytest.raises(ValueError, match="listen must be"):
        check_listen(listen, tls=True, tokens=True)


def test_a_socket_is_not_taken_from_another_server_but_from_a_dead_one(serving, tmp_path):
    first = serving()
    with pytest.raises(StoreUnavailable, match="another server"):
        Server(MemoryStore(), first.listen)
    first.stop(0)
    path = first.listen.removeprefix("unix://")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    Server(MemoryStore(), first.listen).start().stop(0)


def test_the_socket_that_is_made_is_private_and_goes_with_the_server():
    server = Server(MemoryStore()).start()
    folder = Path(server.listen.removeprefix("unix://")).parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    server.stop(0)
    assert not folder.exists()


@pytest.fixture
def tls(tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(tmp_path / "both.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(tmp_path / "cert.pem")
    return Tls(tmp_path / "cert.pem", tmp_path / "key.pem")


def test_over_tls_with_a_token(serving, remote, tls, tmp_path, eventually):
    secret, token = new_token(ALL)
    server = serving(listen="127.0.0.1:0", tls=tls, tokens=[token])
    (tmp_path / "token").write_text(secret + "\n")
    url = f"{server.url}?ca={tmp_path}/ca.pem&token-file={tmp_path}/token"
    with Session("demo", store=remote(url)) as session:
        session.register("n", Integer(), initial=0)
        session.set("n", 1)
        with Session("demo", store=server.store) as beneath:
            beneath.set("n", 2)
            eventually(lambda: session.get("n") == 2, "the push")


def test_a_token_is_not_sent_where_others_can_read_it(remote):
    with pytest.raises(PermissionDenied, match="only over TLS"):
        remote("grpc://example.com:443", token="x" * 43)


@pytest.mark.parametrize(
    "url",
    [
        "grpc://", "grpc://host", "grpc://host:1/path", "grpc://user:pw@host:1", "grpc://host:99999", "grpc+unix://",
        "grpc+unix://host/path", "grpc://h:1?tokenfile=x", "grpc://h:1?tls=maybe", "grpc://h:1?deadline=soon",
        "grpc://h:1?deadline=-1", "grpc://h:1?max-staleness=0",
    ],
)  # fmt: skip
def test_a_url_that_says_nothing_useful_is_refused(remote, url):
    with pytest.raises(ValueError, match="must be"):
        remote(url)


# ---- every method with every bad credential --------------------------------------------------------


class Counting(MemoryStore):
    """Counts what is asked of it."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def open(self, session_id, *, create=True):
        self.asked += 1
        return super().open(session_id, create=create)

    def sessions(self):
        self.asked += 1
        return super().sessions()

    def delete(self, session_id):
        self.asked += 1
        super().delete(session_id)


def bad_credentials(needs):
    """Name, secret, the token that the server knows for it, and the status."""
    denied, unauthenticated = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
    others = ",".join(verb for verb in auth.VERBS if verb != needs)
    yield "none", None, None, unauthenticated
    yield "empty", "", None, unauthenticated
    yield "unknown", "x" * 43, None, unauthenticated
    yield "expired", *new_token(ALL, expires=time.time() - 1), unauthenticated
    yield "another session's", *new_token("other=read,set,watch,admin"), denied
    yield "all but the verb", *new_token(f"*={others}"), denied


@pytest.mark.parametrize("method", [*UNARY, "Link", *(f"Link {call}" for call in CALLS)])
def test_every_method_with_every_bad_credential(serving, method):
    name, _, call = method.partition(" ")
    needs = {**NEEDS, "Link": "read"}.get(name) if not call else _verb(call)
    store = Counting()
    cases = list(bad_credentials(needs))
    tokens = [new_token(ALL)[1], *(token for _, _, token, _ in cases if token is not None)]
    server = serving(store, tokens=tokens, limits=Limits(failures=1e6))
    with grpc.insecure_channel(server.listen.replace("unix://", "unix:")) as channel:
        for what, secret, _, expected in cases:
            metadata = () if secret is None else (("authorization", f"Bearer {secret}"),)
            if name == "Link" and not call and expected is grpc.StatusCode.PERMISSION_DENIED:
                continue  # such a caller may have a Link; each call on it is looked at by itself
            if name == "ListSessions" and expected is grpc.StatusCode.PERMISSION_DENIED:
                continue  # it gets the sessions that it may read: none
            got, trailer = _ask(channel, name, call, metadata)
            assert (what, got) == (what, expected)
            if trailer is not None:
                assert type(status.unpacked(trailer)) is PermissionDenied
    assert store.asked == 0


def _verb(call):
    return service.RULES[CALLS[call].DESCRIPTOR.name]


def _ask(channel, name, call, metadata):
    """The status, and the error."""
    path = f"/{SERVICE}/{name}"
    try:
        if name == "Link":
            calls = [pb.Call(id=1, hello=pb.Hello(protocol=1))]
            if call:
                calls.append(pb.Call(id=2, **{call: CALLS[call]}))
            request = pb.Up(calls=calls).SerializeToString()
            for data in channel.stream_stream(path)(iter([request]), metadata=metadata, timeout=10):
                for item in pb.Down.FromString(data).items:
                    if item.error:
                        return status.status_of(status.unpacked(item.error)), item.error
            return grpc.StatusCode.OK, None
        data = UNARY[name].SerializeToString()
        if name == "Subscribe":
            next(channel.unary_stream(path)(data, metadata=metadata, timeout=10))
        else:
            channel.unary_unary(path)(data, metadata=metadata, timeout=10)
        return grpc.StatusCode.OK, None
    except grpc.RpcError as error:
        trailers = dict(error.trailing_metadata() or ())
        return error.code(), trailers.get(status.TRAILER)


def test_a_reader_sees_what_is_there_and_can_do_nothing(serving, remote, demo):
    writer, first = new_token(ALL)
    reader, second = new_token("demo=read,watch")
    server = serving(tokens=[first, second])
    session = demo(remote(server.url, token=writer))
    session.set("n", 4)
    store = remote(server.url, token=reader)
    with Session("demo", store=store) as seen:
        assert seen.get("n") == 4
        assert [change.value for change in seen.history("n")] == [4]
        assert [info.id for info in store.sessions()] == ["demo"]
        with pytest.raises(PermissionDenied, match="'set'"):
            seen.set("n", 5)
        with pytest.raises(PermissionDenied, match="'admin'"):
            store.delete("demo")
        with pytest.raises(PermissionDenied) as there:
            store.open("other")
        demo(remote(server.url, token=writer), "other")
        with pytest.raises(PermissionDenied) as not_there:
            store.open("other")
        assert str(there.value) == str(not_there.value)
    assert session.get("n") == 4


# ---- secrets -------------------------------------------------------------------------------------------


def test_secrets_do_not_leave(serving, remote, caplog, tmp_path):
    from dspex import Secret

    canary = "CANARY-4711-canary"
    secret, token = new_token(ALL)
    server = serving(tokens=[token])
    said = []
    with caplog.at_level(logging.DEBUG):
        store = remote(server.url, token=secret)
        with Session("demo", store=store) as session:
            session.register("key", Secret(), initial="")
            session.register("n", Integer(), initial=0)
            session.set("key", canary)
            assert session.get("key") == canary
            for refused in (
                lambda: session.set("key", canary, expect=9),
                lambda: session.set("n", 1, expect=9),
                lambda: session.register("key", Integer(), initial=0),
                lambda: session.set("key", 5),
                lambda: store.open("x" * 99),
            ):
                with pytest.raises(Exception) as raised:
                    refused()
                said += [str(raised.value), repr(raised.value), repr(getattr(raised.value, "facts", ""))]
            said += [repr(store), repr(store._address), repr(session), repr(server), repr(token), server.url]
        with pytest.raises(PermissionDenied) as raised:
            remote(server.url, token="y" + secret).open("demo")
        said += [str(raised.value), repr(raised.value)]
    said += [record.getMessage() for record in caplog.records]
    assert not [line for line in said if canary in line or secret in line]


def test_who_may_not_watch_any_more_is_told_nothing(serving, remote, demo, eventually):
    secret, token = new_token(ALL, expires=time.time() + 2.0)
    server = serving(tokens=[token])
    session = demo(remote(server.url, token=secret))
    told = []
    session.watch("n", told.append)
    with Session("demo", store=server.store) as beneath:
        beneath.set("n", 1)
        eventually(lambda: [change.value for change in told] == [1], "a change in time")
        eventually(lambda: server._calls.streams == {}, "the stream has ended")
        beneath.set("n", 2)
        eventually(lambda: session.ledger.status == "CLOSED", "the client was told why")
    with pytest.raises(PermissionDenied):
        session.set("n", 3)
    assert [change.value for change in told] == [1]

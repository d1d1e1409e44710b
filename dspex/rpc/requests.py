"""What clients ask for, as messages and back; nothing that comes is trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakValueDictionary

from google.protobuf.unknown_fields import UnknownFieldSet

from dspex import errors, telemetry, wire
from dspex.authors import check_source
from dspex.commits import ClaimRequest, Commit, Declaration, Schema, Write
from dspex.kinds import Kind
from dspex.kinds.plain import thaw
from dspex.rpc import framing
from dspex.rpc.extra import DecodeError, pb
from dspex.rpc.messages import declarations
from dspex.rpc.patterns import check_patterns

__all__ = [
    "check_words",
    "commit_of",
    "commit_request",
    "declaration_of",
    "is_put",
    "parsed",
    "put_call",
    "put_of",
    "told_declaration",
]

_pack = wire.pack_value

_told: WeakValueDictionary[bytes, Declaration] = WeakValueDictionary()
_checked: WeakValueDictionary[bytes, Declaration] = WeakValueDictionary()
"""Declarations by their bytes, for as long as a session has them; those that strangers may ask for."""


# ---- from a client -------------------------------------------------------------------------------------


def put_call(
    id: int,
    session: str,
    kind: Kind[Any],
    name: str,
    stored: Any,
    *,
    expect: int | None,
    source: str | None,
    metadata: Mapping[str, Any] | None,
    op: str,
) -> bytes:
    """A commit of one write, as a frame. Written field by field, which takes a third of the time."""
    try:
        value = _pack(kind, stored)
        up = pb.Up()
        call = up.calls.add()
        call.id = id
        commit = call.commit
        commit.session = session
        commit.op = op
        if source is not None:
            commit.source = source
        if metadata is not None:
            commit.metadata = wire.pack_plain(thaw(metadata))
        big = len(value) >= framing.BIG
        write = pb.Write() if big else commit.writes.add()
        write.name = name
        if expect is not None:
            write.expect = expect
        if big:
            return framing.big_put(id, commit, write, value)
        write.value = value
        return up.SerializeToString()
    except (TypeError, ValueError) as error:
        raise _unsendable(error) from None


def commit_request(session: str, commit: Commit, kinds: Mapping[str, Kind[Any]]) -> pb.CommitRequest:
    """*commit*, whose values are stored ones, as a message."""
    claim = commit.claim
    try:
        return pb.CommitRequest(
            session=session,
            writes=[
                pb.Write(
                    name=write.name,
                    value=_pack(kinds[write.name], write.value),
                    expect=write.expect,
                    source=write.source,
                )
                for write in commit.writes
            ],
            declare=declarations(commit.declare),
            claim=None
            if claim is None
            else pb.Claim(names=claim.names, owner=claim.owner, token=claim.token, ttl=claim.ttl),
            release=commit.release,
            tag=commit.tag,
            source=commit.source,
            metadata=None if commit.metadata is None else wire.pack_plain(thaw(commit.metadata)),
            token=commit.token,
            op=commit.op,
            given=[pb.Given(name=name, version=version) for name, version in commit.given],
            trace=None if telemetry.active is None else telemetry.active.carrier(),
        )
    except (TypeError, ValueError) as error:
        raise _unsendable(error) from None


def _unsendable(error: Exception) -> errors.DspexError:
    if isinstance(error, errors.DspexError):
        return error
    return errors.InvalidValue.expecting(f"what can be sent: {error}", "a commit").at("commit")


# ---- to a server ---------------------------------------------------------------------------------------


def parsed(message: Any, data: bytes) -> Any:
    """
    The message of that class that *data* is.

    Raises:
        InvalidValue: It is none, or it has a field that nobody here would honour.
    """
    try:
        made = message.FromString(data)
    except DecodeError:
        name = message.DESCRIPTOR.name
        raise errors.InvalidValue.expecting(f"a {name}", f"{len(data)} bytes").at("request") from None
    # Quick, and for all levels at once: what is shorter without unknown fields may have had some.
    made.DiscardUnknownFields()
    if made.ByteSize() != len(data):
        _refuse_unknown(message.FromString(data))
    return made


def _refuse_unknown(message: Any) -> None:
    unknown: Any = UnknownFieldSet(message)
    for field in unknown:
        raise errors.InvalidValue.expecting(
            "fields that this server knows; it may be older than the client", f"field {field.field_number}"
        ).at(message.DESCRIPTOR.name)
    for field, value in message.ListFields():
        if field.message_type is not None:
            for inner in value if field.is_repeated else (value,):
                _refuse_unknown(inner)


def check_words(request: pb.CommitRequest, limit: int) -> None:
    """Refuse tokens and names of commits that are a text of their own."""
    words = {field: getattr(request, field) for field in ("token", "release", "op")}
    for field, word in {**words, "claim.token": request.claim.token}.items():
        if len(word) > limit:
            raise errors.LimitExceeded(
                f"{field} has {len(word)} characters; the limit is {limit}.", limit=limit
            )


def commit_of(request: pb.CommitRequest, schema: Schema) -> Commit:
    """The commit that *request* asks for in a session of *schema*."""
    session = request.session
    has = request.HasField
    declare: tuple[Declaration, ...] = ()
    kinds = schema.kinds
    if request.declare:
        declare = schema.undeclared(map(declaration_of, request.declare))
        kinds = {**kinds, **{one.name: one.kind for one in declare}}
    writes = tuple(
        Write(
            write.name,
            _value_of(session, kinds, write.name, write.value),
            write.expect if write.HasField("expect") else None,
            _source_of(write),
        )
        for write in request.writes
    )
    if len({write.name for write in writes}) < len(writes):
        raise errors.InvalidValue.expecting("each name once", "one twice").at("writes", session)
    return Commit(
        writes,
        declare,
        _claim_of(session, request.claim) if has("claim") else None,
        request.release if has("release") else None,
        request.tag if has("tag") else None,
        _source_of(request),
        _metadata_of(request) if has("metadata") else None,
        request.token if has("token") else None,
        request.op if has("op") else None,
        tuple((one.name, one.version) for one in request.given),
    )


def is_put(request: pb.CommitRequest) -> bool:
    """Whether *request* is one write and nothing else."""
    has = request.HasField
    return (
        len(request.writes) == 1
        and not request.declare
        and not request.given
        and not (has("token") or has("tag") or has("claim") or has("release"))
    )


def put_of(request: pb.CommitRequest, schema: Schema) -> tuple[Any, ...]:
    """The arguments of `Ledger.put` that *request* means."""
    write = request.writes[0]
    name = write.name
    value = _value_of(request.session, schema.kinds, name, write.value)
    metadata = _metadata_of(request) if request.HasField("metadata") else None
    source = _source_of(write)
    if source is None:
        source = _source_of(request)
    return name, value, metadata, source, write.expect if write.HasField("expect") else None


def declaration_of(data: bytes) -> Declaration:
    """The declaration that *data* is, if a server takes it; the same object for the same bytes."""
    declared = _checked.get(data)
    if declared is None:
        plain = wire.unpack_plain(data)
        if isinstance(plain, list) and len(plain) > 1:
            check_patterns(plain[1])
        declared = _checked[data] = told_declaration(data)
    return declared


def told_declaration(data: bytes) -> Declaration:
    """The declaration that *data*, from a server, is; the same object for the same bytes."""
    declared = _told.get(data)
    if declared is None:
        declared = _told[data] = wire.unpack_declaration(data)
    return declared


def _value_of(session: str, kinds: Mapping[str, Kind[Any]], name: str, data: bytes) -> Any:
    try:
        return wire.unpack_value(kinds[name], data)
    except KeyError:
        raise errors.unknown_variable(f"session '{session}'", name, kinds) from None
    except errors.InvalidValue as error:
        raise error.at(name, session) from None
    except errors.LimitExceeded as error:
        raise errors.LimitExceeded(
            f"{name}: {error.message} In session '{session}'.", name=name, **error.facts
        ) from None


def _source_of(message: pb.Write | pb.CommitRequest) -> str | None:
    if not message.HasField("source"):
        return None
    source = message.source
    check_source(source)
    return source


def _metadata_of(request: pb.CommitRequest) -> Any:
    metadata = wire.unpack_plain(request.metadata)
    if not isinstance(metadata, dict):
        raise errors.InvalidValue.expecting("a mapping", errors.shown(metadata)).at(
            "metadata", request.session
        )
    return metadata


def _claim_of(session: str, claim: pb.Claim) -> ClaimRequest:
    if not claim.token:
        raise errors.InvalidValue.expecting("a text that nobody can guess", "none").at("token", session)
    return ClaimRequest.checked(session, claim.names, claim.owner, claim.token, claim.ttl)

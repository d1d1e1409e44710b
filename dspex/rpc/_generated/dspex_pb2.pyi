from google.protobuf import descriptor_pb2 as _descriptor_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Start(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    START_UNSPECIFIED: _ClassVar[Start]
    START_SNAPSHOT: _ClassVar[Start]
    START_COMPACTED: _ClassVar[Start]
    START_OTHER_EPOCH: _ClassVar[Start]
    START_RESUMED: _ClassVar[Start]

class Step(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STEP_UNSPECIFIED: _ClassVar[Step]
    STEP_HOLD: _ClassVar[Step]
    STEP_RELEASE: _ClassVar[Step]
    STEP_FORWARD: _ClassVar[Step]
    STEP_DROP: _ClassVar[Step]
START_UNSPECIFIED: Start
START_SNAPSHOT: Start
START_COMPACTED: Start
START_OTHER_EPOCH: Start
START_RESUMED: Start
STEP_UNSPECIFIED: Step
STEP_HOLD: Step
STEP_RELEASE: Step
STEP_FORWARD: Step
STEP_DROP: Step
NEEDS_FIELD_NUMBER: _ClassVar[int]
needs: _descriptor.FieldDescriptor

class Up(_message.Message):
    __slots__ = ("calls",)
    CALLS_FIELD_NUMBER: _ClassVar[int]
    calls: _containers.RepeatedCompositeFieldContainer[Call]
    def __init__(self, calls: _Optional[_Iterable[_Union[Call, _Mapping]]] = ...) -> None: ...

class Call(_message.Message):
    __slots__ = ("id", "hello", "subscribe", "commit", "snapshot", "history", "list_sessions", "delete_session", "leave", "ping", "export", "hold", "restore")
    ID_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    LIST_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    DELETE_SESSION_FIELD_NUMBER: _ClassVar[int]
    LEAVE_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    EXPORT_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    id: int
    hello: Hello
    subscribe: SubscribeRequest
    commit: CommitRequest
    snapshot: SnapshotRequest
    history: HistoryRequest
    list_sessions: ListRequest
    delete_session: DeleteRequest
    leave: Leave
    ping: Ping
    export: ExportRequest
    hold: HoldRequest
    restore: RestoreRequest
    def __init__(self, id: _Optional[int] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., subscribe: _Optional[_Union[SubscribeRequest, _Mapping]] = ..., commit: _Optional[_Union[CommitRequest, _Mapping]] = ..., snapshot: _Optional[_Union[SnapshotRequest, _Mapping]] = ..., history: _Optional[_Union[HistoryRequest, _Mapping]] = ..., list_sessions: _Optional[_Union[ListRequest, _Mapping]] = ..., delete_session: _Optional[_Union[DeleteRequest, _Mapping]] = ..., leave: _Optional[_Union[Leave, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., export: _Optional[_Union[ExportRequest, _Mapping]] = ..., hold: _Optional[_Union[HoldRequest, _Mapping]] = ..., restore: _Optional[_Union[RestoreRequest, _Mapping]] = ...) -> None: ...

class Down(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[Item]
    def __init__(self, items: _Optional[_Iterable[_Union[Item, _Mapping]]] = ...) -> None: ...

class Item(_message.Message):
    __slots__ = ("id", "error", "welcome", "opened", "commit", "snapshot", "history", "list_sessions", "delete_session", "left", "pong", "event", "declared", "bookmark", "ended", "going_away", "export", "hold", "restore")
    ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    OPENED_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    LIST_SESSIONS_FIELD_NUMBER: _ClassVar[int]
    DELETE_SESSION_FIELD_NUMBER: _ClassVar[int]
    LEFT_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    DECLARED_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    GOING_AWAY_FIELD_NUMBER: _ClassVar[int]
    EXPORT_FIELD_NUMBER: _ClassVar[int]
    HOLD_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    id: int
    error: bytes
    welcome: Welcome
    opened: Opened
    commit: CommitReply
    snapshot: SnapshotReply
    history: HistoryReply
    list_sessions: ListReply
    delete_session: DeleteReply
    left: Left
    pong: Pong
    event: Event
    declared: Declared
    bookmark: Bookmark
    ended: Ended
    going_away: GoingAway
    export: ExportReply
    hold: HoldReply
    restore: RestoreReply
    def __init__(self, id: _Optional[int] = ..., error: _Optional[bytes] = ..., welcome: _Optional[_Union[Welcome, _Mapping]] = ..., opened: _Optional[_Union[Opened, _Mapping]] = ..., commit: _Optional[_Union[CommitReply, _Mapping]] = ..., snapshot: _Optional[_Union[SnapshotReply, _Mapping]] = ..., history: _Optional[_Union[HistoryReply, _Mapping]] = ..., list_sessions: _Optional[_Union[ListReply, _Mapping]] = ..., delete_session: _Optional[_Union[DeleteReply, _Mapping]] = ..., left: _Optional[_Union[Left, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., event: _Optional[_Union[Event, _Mapping]] = ..., declared: _Optional[_Union[Declared, _Mapping]] = ..., bookmark: _Optional[_Union[Bookmark, _Mapping]] = ..., ended: _Optional[_Union[Ended, _Mapping]] = ..., going_away: _Optional[_Union[GoingAway, _Mapping]] = ..., export: _Optional[_Union[ExportReply, _Mapping]] = ..., hold: _Optional[_Union[HoldReply, _Mapping]] = ..., restore: _Optional[_Union[RestoreReply, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "client")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    client: str
    def __init__(self, protocol: _Optional[int] = ..., client: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "server", "bookmark_seconds")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    BOOKMARK_SECONDS_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    server: str
    bookmark_seconds: float
    def __init__(self, protocol: _Optional[int] = ..., server: _Optional[str] = ..., bookmark_seconds: _Optional[float] = ...) -> None: ...

class Leave(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class Left(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Ping(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OpenRequest(_message.Message):
    __slots__ = ("session", "create")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    session: str
    create: bool
    def __init__(self, session: _Optional[str] = ..., create: bool = ...) -> None: ...

class Revision(_message.Message):
    __slots__ = ("epoch", "rev")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    rev: int
    def __init__(self, epoch: _Optional[str] = ..., rev: _Optional[int] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("session", "create", "resume")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CREATE_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    session: str
    create: bool
    resume: Revision
    def __init__(self, session: _Optional[str] = ..., create: bool = ..., resume: _Optional[_Union[Revision, _Mapping]] = ...) -> None: ...

class Opened(_message.Message):
    __slots__ = ("session", "channel", "epoch", "rev", "start", "declarations", "records", "more")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    DECLARATIONS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    session: str
    channel: int
    epoch: str
    rev: int
    start: Start
    declarations: _containers.RepeatedScalarFieldContainer[bytes]
    records: _containers.RepeatedCompositeFieldContainer[Change]
    more: bool
    def __init__(self, session: _Optional[str] = ..., channel: _Optional[int] = ..., epoch: _Optional[str] = ..., rev: _Optional[int] = ..., start: _Optional[_Union[Start, str]] = ..., declarations: _Optional[_Iterable[bytes]] = ..., records: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., more: bool = ...) -> None: ...

class Change(_message.Message):
    __slots__ = ("name", "value", "version", "rev", "source", "metadata", "time", "old")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    OLD_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    version: int
    rev: int
    source: str
    metadata: bytes
    time: float
    old: bytes
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ..., version: _Optional[int] = ..., rev: _Optional[int] = ..., source: _Optional[str] = ..., metadata: _Optional[bytes] = ..., time: _Optional[float] = ..., old: _Optional[bytes] = ...) -> None: ...

class Write(_message.Message):
    __slots__ = ("name", "value", "expect", "source")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EXPECT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: bytes
    expect: int
    source: str
    def __init__(self, name: _Optional[str] = ..., value: _Optional[bytes] = ..., expect: _Optional[int] = ..., source: _Optional[str] = ...) -> None: ...

class Claim(_message.Message):
    __slots__ = ("names", "owner", "token", "ttl")
    NAMES_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    TTL_FIELD_NUMBER: _ClassVar[int]
    names: _containers.RepeatedScalarFieldContainer[str]
    owner: str
    token: str
    ttl: float
    def __init__(self, names: _Optional[_Iterable[str]] = ..., owner: _Optional[str] = ..., token: _Optional[str] = ..., ttl: _Optional[float] = ...) -> None: ...

class CommitRequest(_message.Message):
    __slots__ = ("session", "writes", "declare", "claim", "release", "tag", "source", "metadata", "token", "op", "given", "trace")
    class TraceEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SESSION_FIELD_NUMBER: _ClassVar[int]
    WRITES_FIELD_NUMBER: _ClassVar[int]
    DECLARE_FIELD_NUMBER: _ClassVar[int]
    CLAIM_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    OP_FIELD_NUMBER: _ClassVar[int]
    GIVEN_FIELD_NUMBER: _ClassVar[int]
    TRACE_FIELD_NUMBER: _ClassVar[int]
    session: str
    writes: _containers.RepeatedCompositeFieldContainer[Write]
    declare: _containers.RepeatedScalarFieldContainer[bytes]
    claim: Claim
    release: str
    tag: str
    source: str
    metadata: bytes
    token: str
    op: str
    given: _containers.RepeatedCompositeFieldContainer[Given]
    trace: _containers.ScalarMap[str, str]
    def __init__(self, session: _Optional[str] = ..., writes: _Optional[_Iterable[_Union[Write, _Mapping]]] = ..., declare: _Optional[_Iterable[bytes]] = ..., claim: _Optional[_Union[Claim, _Mapping]] = ..., release: _Optional[str] = ..., tag: _Optional[str] = ..., source: _Optional[str] = ..., metadata: _Optional[bytes] = ..., token: _Optional[str] = ..., op: _Optional[str] = ..., given: _Optional[_Iterable[_Union[Given, _Mapping]]] = ..., trace: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Given(_message.Message):
    __slots__ = ("name", "version")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VERSION_FIELD_NUMBER: _ClassVar[int]
    name: str
    version: int
    def __init__(self, name: _Optional[str] = ..., version: _Optional[int] = ...) -> None: ...

class CommitReply(_message.Message):
    __slots__ = ("epoch", "rev", "changes", "own", "time", "more")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    OWN_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    rev: int
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    own: bool
    time: float
    more: bool
    def __init__(self, epoch: _Optional[str] = ..., rev: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., own: bool = ..., time: _Optional[float] = ..., more: bool = ...) -> None: ...

class SnapshotRequest(_message.Message):
    __slots__ = ("session", "tag", "names")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TAG_FIELD_NUMBER: _ClassVar[int]
    NAMES_FIELD_NUMBER: _ClassVar[int]
    session: str
    tag: str
    names: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, session: _Optional[str] = ..., tag: _Optional[str] = ..., names: _Optional[_Iterable[str]] = ...) -> None: ...

class SnapshotReply(_message.Message):
    __slots__ = ("epoch", "rev", "declarations", "records", "tags", "more")
    class TagsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: Revision
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[Revision, _Mapping]] = ...) -> None: ...
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    DECLARATIONS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    TAGS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    rev: int
    declarations: _containers.RepeatedScalarFieldContainer[bytes]
    records: _containers.RepeatedCompositeFieldContainer[Change]
    tags: _containers.MessageMap[str, Revision]
    more: bool
    def __init__(self, epoch: _Optional[str] = ..., rev: _Optional[int] = ..., declarations: _Optional[_Iterable[bytes]] = ..., records: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., tags: _Optional[_Mapping[str, Revision]] = ..., more: bool = ...) -> None: ...

class HistoryRequest(_message.Message):
    __slots__ = ("session", "name", "since")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    SINCE_FIELD_NUMBER: _ClassVar[int]
    session: str
    name: str
    since: int
    def __init__(self, session: _Optional[str] = ..., name: _Optional[str] = ..., since: _Optional[int] = ...) -> None: ...

class HistoryReply(_message.Message):
    __slots__ = ("epoch", "changes", "more")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    epoch: str
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    more: bool
    def __init__(self, epoch: _Optional[str] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., more: bool = ...) -> None: ...

class ListRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SessionInfo(_message.Message):
    __slots__ = ("id", "epoch", "rev", "variables", "created")
    ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    VARIABLES_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    id: str
    epoch: str
    rev: int
    variables: int
    created: float
    def __init__(self, id: _Optional[str] = ..., epoch: _Optional[str] = ..., rev: _Optional[int] = ..., variables: _Optional[int] = ..., created: _Optional[float] = ...) -> None: ...

class ListReply(_message.Message):
    __slots__ = ("sessions", "more")
    SESSIONS_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    sessions: _containers.RepeatedCompositeFieldContainer[SessionInfo]
    more: bool
    def __init__(self, sessions: _Optional[_Iterable[_Union[SessionInfo, _Mapping]]] = ..., more: bool = ...) -> None: ...

class DeleteRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class DeleteReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ExportRequest(_message.Message):
    __slots__ = ("session",)
    SESSION_FIELD_NUMBER: _ClassVar[int]
    session: str
    def __init__(self, session: _Optional[str] = ...) -> None: ...

class ExportReply(_message.Message):
    __slots__ = ("pieces", "more")
    PIECES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    pieces: _containers.RepeatedScalarFieldContainer[bytes]
    more: bool
    def __init__(self, pieces: _Optional[_Iterable[bytes]] = ..., more: bool = ...) -> None: ...

class HoldRequest(_message.Message):
    __slots__ = ("session", "token", "step", "url", "there")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    STEP_FIELD_NUMBER: _ClassVar[int]
    URL_FIELD_NUMBER: _ClassVar[int]
    THERE_FIELD_NUMBER: _ClassVar[int]
    session: str
    token: str
    step: Step
    url: str
    there: str
    def __init__(self, session: _Optional[str] = ..., token: _Optional[str] = ..., step: _Optional[_Union[Step, str]] = ..., url: _Optional[str] = ..., there: _Optional[str] = ...) -> None: ...

class HoldReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RestoreRequest(_message.Message):
    __slots__ = ("session", "token", "part", "pieces", "more")
    SESSION_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    PART_FIELD_NUMBER: _ClassVar[int]
    PIECES_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    session: str
    token: str
    part: int
    pieces: _containers.RepeatedScalarFieldContainer[bytes]
    more: bool
    def __init__(self, session: _Optional[str] = ..., token: _Optional[str] = ..., part: _Optional[int] = ..., pieces: _Optional[_Iterable[bytes]] = ..., more: bool = ...) -> None: ...

class RestoreReply(_message.Message):
    __slots__ = ("digest",)
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    digest: str
    def __init__(self, digest: _Optional[str] = ...) -> None: ...

class Event(_message.Message):
    __slots__ = ("channel", "prev", "rev", "changes", "coalesced", "more")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    PREV_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    COALESCED_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    channel: int
    prev: int
    rev: int
    changes: _containers.RepeatedCompositeFieldContainer[Change]
    coalesced: bool
    more: bool
    def __init__(self, channel: _Optional[int] = ..., prev: _Optional[int] = ..., rev: _Optional[int] = ..., changes: _Optional[_Iterable[_Union[Change, _Mapping]]] = ..., coalesced: bool = ..., more: bool = ...) -> None: ...

class Declared(_message.Message):
    __slots__ = ("channel", "declarations")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    DECLARATIONS_FIELD_NUMBER: _ClassVar[int]
    channel: int
    declarations: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, channel: _Optional[int] = ..., declarations: _Optional[_Iterable[bytes]] = ...) -> None: ...

class Bookmark(_message.Message):
    __slots__ = ("channel", "rev", "digest")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    REV_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    channel: int
    rev: int
    digest: int
    def __init__(self, channel: _Optional[int] = ..., rev: _Optional[int] = ..., digest: _Optional[int] = ...) -> None: ...

class Ended(_message.Message):
    __slots__ = ("channel", "error")
    CHANNEL_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    channel: int
    error: bytes
    def __init__(self, channel: _Optional[int] = ..., error: _Optional[bytes] = ...) -> None: ...

class GoingAway(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

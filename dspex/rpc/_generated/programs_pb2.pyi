from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class RunRequest(_message.Message):
    __slots__ = ("program", "inputs", "session", "seconds", "pin", "idempotent")
    PROGRAM_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    SESSION_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    PIN_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENT_FIELD_NUMBER: _ClassVar[int]
    program: str
    inputs: bytes
    session: str
    seconds: float
    pin: bool
    idempotent: bool
    def __init__(self, program: _Optional[str] = ..., inputs: _Optional[bytes] = ..., session: _Optional[str] = ..., seconds: _Optional[float] = ..., pin: bool = ..., idempotent: bool = ...) -> None: ...

class RunReply(_message.Message):
    __slots__ = ("output", "failure")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    output: bytes
    failure: bytes
    def __init__(self, output: _Optional[bytes] = ..., failure: _Optional[bytes] = ...) -> None: ...

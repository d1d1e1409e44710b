"""Live variables for LM programs."""

from typing import TYPE_CHECKING

from dspex.batches import Batch
from dspex.changes import Change, Watch
from dspex.claims import Claim
from dspex.errors import (
    Claimed,
    DeadlineExceeded,
    DspexError,
    DurabilityUnknown,
    ForkUnsafe,
    InvalidAssignment,
    InvalidCall,
    InvalidDeclaration,
    InvalidName,
    InvalidValue,
    LimitExceeded,
    MetricFailed,
    MissingExtra,
    NoLanguageModel,
    PermissionDenied,
    PoolClosed,
    PoolSaturated,
    ProgramError,
    RuleBroken,
    SessionClosed,
    SessionExists,
    SessionMoved,
    SessionMoving,
    StaleRead,
    StoreUnavailable,
    UnknownModule,
    UnknownProgram,
    UnknownRevision,
    UnknownSession,
    UnknownTool,
    UnknownVariable,
    VariableConflict,
    VersionConflict,
    WorkerLost,
    WouldBlock,
)
from dspex.kinds import (
    Boolean,
    Choice,
    Demos,
    Embedding,
    Float,
    Integer,
    Kind,
    ListOf,
    ModuleChoice,
    Prompt,
    Secret,
    Struct,
    Tensor,
    Text,
)
from dspex.later import later
from dspex.program import Program, defprogram
from dspex.records import Record, Revision, SessionInfo, Snapshot
from dspex.rules import rule
from dspex.runs import Run
from dspex.session import Session
from dspex.stores import open_store
from dspex.variables import Variable, defvariable

if TYPE_CHECKING:
    from dspex.rollouts import Guard, Rollout
    from dspex.tools import Tool, tool

__all__ = [
    "Batch",
    "Boolean",
    "Change",
    "Choice",
    "Claim",
    "Claimed",
    "DeadlineExceeded",
    "Demos",
    "DspexError",
    "DurabilityUnknown",
    "Embedding",
    "Float",
    "ForkUnsafe",
    "Guard",
    "Integer",
    "InvalidAssignment",
    "InvalidCall",
    "InvalidDeclaration",
    "InvalidName",
    "InvalidValue",
    "Kind",
    "LimitExceeded",
    "ListOf",
    "MetricFailed",
    "MissingExtra",
    "ModuleChoice",
    "NoLanguageModel",
    "PermissionDenied",
    "PoolClosed",
    "PoolSaturated",
    "Program",
    "ProgramError",
    "Prompt",
    "Record",
    "Revision",
    "Rollout",
    "RuleBroken",
    "Run",
    "Secret",
    "Session",
    "SessionClosed",
    "SessionExists",
    "SessionInfo",
    "SessionMoved",
    "SessionMoving",
    "Snapshot",
    "StaleRead",
    "StoreUnavailable",
    "Struct",
    "Tensor",
    "Text",
    "Tool",
    "UnknownModule",
    "UnknownProgram",
    "UnknownRevision",
    "UnknownSession",
    "UnknownTool",
    "UnknownVariable",
    "Variable",
    "VariableConflict",
    "VersionConflict",
    "Watch",
    "WorkerLost",
    "WouldBlock",
    "defprogram",
    "defvariable",
    "open_store",
    "rule",
    "tool",
]

__version__ = "0.1.0"

__getattr__ = later(__name__, {"Guard": "rollouts", "Rollout": "rollouts", "Tool": "tools", "tool": "tools"})

"""What type checkers see of variables, programs and sessions. Checked by mypy and pyright, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any, assert_type

from dspex import (
    Batch,
    Boolean,
    Change,
    Claim,
    Float,
    Integer,
    ListOf,
    ModuleChoice,
    Program,
    Prompt,
    Record,
    Revision,
    Run,
    Secret,
    Session,
    Snapshot,
    Text,
    Variable,
    Watch,
    defprogram,
    defvariable,
)
from dspex.changes import ChangeSignal
from dspex.commits import Declaration


class Mode(Enum):
    FAST = "fast"


class Retriever(Program):
    k = defvariable(Integer(min=1), initial=3)


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    shorthand = defvariable(float, initial=0.7)
    annotated: Variable[float] = defvariable(Float(), initial=0.7)
    title = defvariable(Text(), initial="")
    prompt = defvariable(Prompt(), initial="{question}")
    key = defvariable(Secret(), initial="")
    flag = defvariable(Boolean(), initial=True)
    mode = defvariable(Mode, initial=Mode.FAST)
    strategy = defvariable(ModuleChoice("Predict"), initial="Predict")
    by_name = defvariable("float", initial=0.7, constraints={"min": 0.0})
    module_by_name = defvariable("module", initial="Predict", constraints={"choices": ["Predict"]})
    retriever = defprogram(Retriever)

    def forward(self, question: str) -> str:
        assert_type(self.temperature, float)
        assert_type(self.session, Session)
        return question


# The class answers with the declaration.
assert_type(Agent.temperature, Variable[float])
assert_type(Agent.shorthand, Variable[float])
assert_type(Agent.annotated, Variable[float])
assert_type(Agent.title, Variable[str])
assert_type(Agent.flag, Variable[bool])
assert_type(Agent.mode, Variable[Mode])
assert_type(Agent.strategy, Variable[Callable[..., Any]])
assert_type(Agent.by_name, Variable[Any])
assert_type(Agent.temperature.changed, ChangeSignal)
assert_type(Agent.temperature.name, str)
assert_type(Agent.variables, Mapping[str, Variable[Any]])

session = Session("demo")

# An instance answers with the value.
agent = Agent.bind(session)
assert_type(agent, Agent)
assert_type(Agent(session), Agent)
assert_type(agent.pinned(), Agent)
assert_type(agent.temperature, float)
assert_type(agent.shorthand, float)
assert_type(agent.annotated, float)
assert_type(agent.title, str)
assert_type(agent.prompt, str)
assert_type(agent.key, str)
assert_type(agent.flag, bool)
assert_type(agent.mode, Mode)
assert_type(agent.strategy, Callable[..., Any])
assert_type(agent.module_by_name, Callable[..., Any])
assert_type(agent.retriever, Retriever)
assert_type(agent.retriever.k, int)

# So does what may be assigned.
agent.temperature = 0.2
agent.temperature = 1
agent.retriever.k = 4
agent.temperature = "warm"  # type: ignore[assignment]
agent.flag = "yes"  # type: ignore[assignment]
agent.retriever.k = "4"  # type: ignore[assignment]

# Sessions.
assert_type(session.get("temperature"), Any)
assert_type(session.set("temperature", 0.1), Change)
assert_type(session.swap("temperature", lambda value: value / 2), Change)
assert_type(session.record("temperature"), Record)
assert_type(session.snapshot(), Snapshot)
assert_type(session.history("temperature"), Sequence[Change])
assert_type(session.tag("good"), Revision)
assert_type(session.revision, Revision)
assert_type(session.batch(), Batch)
assert_type(session.claim(["temperature"], owner="tuner", ttl=1.0), Claim)
assert_type(session.watch("temperature", lambda change: str(change.new)), Watch)
assert_type(session.register("top_p", float, initial=1.0), Declaration)
assert_type(session.fork(), Session)
with session as entered, session.fork() as fork:
    assert_type(entered, Session)
    assert_type(fork, Session)

# Runs.
assert_type(Agent.record("?", session=session), Run)
assert_type(agent.record("?"), Run)
assert_type(Agent.record("?").output, Any)
Agent.run("?", session=session, pin=True, timeout=1.0)


async def awaited() -> None:
    assert_type(await session.aset("temperature", 0.1), Change)
    assert_type(await session.asnapshot(), Snapshot)
    assert_type(await Agent.arecord("?", session=session), Run)
    async with session.batch() as batch:
        assert_type(batch, Batch)


# Lists take lists and give tuples.
assert_type(ListOf(Integer()).check([1]), tuple[int, ...])

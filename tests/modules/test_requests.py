"""Settings reach the requests that the model gets, for every module."""

from __future__ import annotations

import json
from types import MappingProxyType

import pytest

import dspex
from dspex import (
    Choice,
    DeadlineExceeded,
    Demos,
    Float,
    Integer,
    ListOf,
    Program,
    Session,
    Text,
    deadlines,
    defprogram,
    defvariable,
)
from dspex.modules import (
    BestOfN,
    ChainOfThought,
    MultiChainComparison,
    Predict,
    ProgramOfThought,
    ReAct,
    Refine,
    wrap,
)


class Interpreter:
    """Runs nothing and says 42."""

    tools = MappingProxyType({})

    def start(self):
        pass

    def execute(self, code, variables=None):
        return 42

    def shutdown(self):
        pass


def look(word: str) -> str:
    """Looks a word up."""
    return f"{word} is a word"


def reward(inputs, prediction):
    return 1.0 if prediction.answer == "good" else 0.0


def program_of_thought(**settings):
    with pytest.warns(DeprecationWarning, match="ProgramOfThought is deprecated"):
        return ProgramOfThought("question -> answer", interpreter_factory=Interpreter, **settings)


def wrapped(**settings):
    import dspy

    class Two(dspy.Module):
        def __init__(self):
            super().__init__()
            self.first = dspy.Predict("question -> hint")
            self.second = [dspy.ChainOfThought("question, hint -> answer")]

        def forward(self, question):
            return self.second[0](question=question, hint=self.first(question=question).hint)

        async def aforward(self, question):
            hint = (await self.first.acall(question=question)).hint
            return await self.second[0].acall(question=question, hint=hint)

    return wrap(Two(), **settings)


SIMPLE = "question -> answer"
MODULES = {
    "Predict": (lambda **s: Predict(SIMPLE, **s), 1),
    "ChainOfThought": (lambda **s: ChainOfThought(SIMPLE, **s), 1),
    "ReAct": (lambda **s: ReAct(SIMPLE, tools=[look], **s), 3),
    "ProgramOfThought": (program_of_thought, 2),
    "MultiChainComparison": (lambda **s: MultiChainComparison(SIMPLE, M=2, **s), 1),
    "BestOfN": (lambda **s: BestOfN(SIMPLE, N=2, reward_fn=reward, threshold=1.0, **s), 2),
    "Refine": (lambda **s: Refine(SIMPLE, N=2, reward_fn=reward, threshold=1.0, **s), 3),
    "wrap": (wrapped, 2),
}
"""By name: how it is made, and how many requests a call of it makes."""

AWAITED = {"Predict", "ChainOfThought", "ReAct", "MultiChainComparison", "wrap"}


@pytest.fixture(params=MODULES)
def kind(request):
    return request.param


@pytest.fixture
def table():
    """Answers that let every module come to its end."""
    return {
        "answer": "bad",
        "next_tool_name": ["look", "finish"] * 4,
        "next_tool_args": ['{"word": "x"}', "{}"] * 4,
        "generated_code": "SUBMIT()",
        "advice": '{"self": "be good"}',
    }


@pytest.fixture
def ask(called):
    def call(kind, module):
        more = {}
        if kind == "MultiChainComparison":
            more["completions"] = [{"reasoning": "r", "answer": "a"}] * 2
        return called(module, question="why", **more)

    return call


def test_lm_parameters_are_in_every_request(kind, recorder, table, ask):
    make, requests = MODULES[kind]
    engine, lm = recorder(**table)
    module = make(lm=lm, temperature=0.25, max_tokens=77, top_p=0.5, seed=9, stop=("END", "STOP"))
    assert ask(kind, module).answer == "bad"
    seen = [
        (c.temperature, c.max_tokens, c.top_p, c.seed, c.stop) for c in (r.config for r in engine.requests)
    ]
    assert [(0.25, 77, 0.5, 9, ("END", "STOP"))] * requests == seen


def test_without_settings_requests_are_what_dspy_makes(kind, recorder, table, ask):
    make, requests = MODULES[kind]
    engine, lm = recorder(**table)
    ask(kind, make(lm=lm))
    theirs = {"MultiChainComparison": [0.7], "BestOfN": [1.0, 1.0], "Refine": [1.0, None, 1.0]}
    assert theirs.get(kind, [None] * requests) == engine.configs("temperature")
    assert [None] * requests == engine.configs("max_tokens")


def test_the_async_half_of_the_lm_is_awaited(kind, recorder, table, ask, called):
    make, requests = MODULES[kind]
    engine, lm = recorder(**table)
    ask(kind, make(lm=lm))
    asynchronous = called.__name__ == "awaited" and kind in AWAITED
    assert (requests if asynchronous else 0) == engine.waiting.awaited


def test_instructions_replace_the_task_in_every_predictor(kind, recorder, table, ask, instructions):
    make, _ = MODULES[kind]
    engine, lm = recorder(**table)
    ask(kind, make(lm=lm, instructions="Rhyme."))
    # Refine asks for advice with DSPy's own prompt, which is about the task and not the task.
    told = [instructions(one) for one in engine.requests if "assign blame" not in one.system]
    assert [one for one in told if not one.startswith("Rhyme.")] == []
    if kind not in ("ReAct", "ProgramOfThought"):
        assert {"Rhyme."} == set(told)
    assert [one for one in told if "Given the fields `question`, produce" in one] == []


def test_the_protocol_of_agents_stays_around_new_instructions(recorder, table, ask, instructions):
    engine, lm = recorder(**table)
    ask("ReAct", ReAct("question -> answer", tools=[look], lm=lm, instructions="Rhyme."))
    first, _, last = [instructions(one) for one in engine.requests]
    assert first.startswith("Rhyme.\n")
    assert "You are an Agent." in first
    assert "(1) look" in first
    assert last == "Rhyme."

    engine, lm = recorder(**table)
    ask("ProgramOfThought", program_of_thought(lm=lm, instructions="Rhyme."))
    assert "Rhyme.\nYou will be given `question` and you" in instructions(engine.requests[0])


def test_demos_are_shown_by_every_predictor(kind, recorder, table, ask, demos):
    make, _ = MODULES[kind]
    engine, lm = recorder(**table)
    one = {"question": "4+5", "hint": "add", "answer": "9", "reasoning": "4+5=9"}
    ask(kind, make(lm=lm, demos=[one]))
    shown = [demos(request) for request in engine.requests if "assign blame" not in request.system]
    if kind in ("ReAct", "ProgramOfThought"):
        shown = [shown[-1]]  # the others have outputs that this example does not show
    assert [each for each in shown if len(each) != 1] == []
    assert [each for each in shown if "4+5" not in each[0][0]] == []
    assert "9" in shown[-1][0][1]


def test_chain_of_thought_shows_the_reasoning_of_demos(recorder, demos, called):
    engine, lm = recorder()
    demo = {"question": "4+5", "reasoning": "count on from 4", "answer": "9"}
    called(ChainOfThought("question -> answer", lm=lm, demos=(demo,)), question="1+2")
    [(_, outputs)] = demos(engine.last)
    assert "count on from 4" in outputs


def test_demos_may_be_dspy_examples(recorder, demos, called):
    import dspy

    engine, lm = recorder()
    called(Predict(SIMPLE, lm=lm, demos=[dspy.Example(question="q1", answer="a1")]), question="q")
    assert "q1" in demos(engine.last)[0][0]


def test_none_leaves_a_setting_out(recorder, called):
    engine, lm = recorder()
    lm.kwargs["temperature"] = 0.4
    called(Predict(SIMPLE, lm=lm, temperature=None, instructions=None, demos=None, model=None), question="q")
    assert engine.configs("temperature") == [0.4]


def test_the_adapter_writes_the_request(recorder, called):
    import dspy

    for given in ("json", dspy.JSONAdapter()):
        engine, lm = recorder()
        engine.text = json.dumps({"answer": "4"})
        assert called(Predict(SIMPLE, lm=lm, adapter=given, temperature=0.5), question="q").answer == "4"
        assert "JSON object" in engine.last.messages[-1].text
        assert engine.last.config.temperature == 0.5


def test_the_terse_adapter_has_a_name(recorder, called):
    engine, lm = recorder()
    engine.supports_raw_completion = True
    engine.text = " 4\n"
    asked = Predict(
        SIMPLE, lm=lm, adapter="terse", instructions="Add.", demos=[{"question": "1+2", "answer": "3"}]
    )
    assert called(asked, question="2+2").answer == "4"
    assert engine.last.messages[0].text == "Add.\n\nQuestion: 1+2\nAnswer: 3\n\nQuestion: 2+2\nAnswer:"


def test_several_completions_are_not_asked_for_at_temperature_zero(recorder, called):
    engine, lm = recorder(answer=["a", "b"])
    prediction = called(Predict(SIMPLE, lm=lm, n=2, temperature=0.0), question="q")
    assert prediction.completions.answer == ["a", "b"]
    assert engine.configs("temperature") == [0.7, 0.7]


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    length = defvariable(Integer(min=1), initial=50)
    task = defvariable(Text(), initial="Answer.")
    examples = defvariable(Demos(), initial=[{"question": "q0", "answer": "a0"}])
    stops = defvariable(ListOf(Text()), initial=["."])
    adapter = defvariable(Choice("chat", "xml"), initial="chat")

    lm = None

    def init(self):
        self.ask = ChainOfThought(
            "question -> answer",
            temperature=Agent.temperature,
            max_tokens=Agent.length,
            instructions=Agent.task,
            demos=Agent.examples,
            stop=Agent.stops,
            adapter=Agent.adapter,
            lm=Agent.lm,
        )
        self.modules["ask"] = self.ask.module

    def forward(self, question):
        return self.ask(question=question).answer

    async def aforward(self, question):
        return (await self.ask.acall(question=question)).answer


@pytest.fixture
def agent(recorder, monkeypatch):
    """A recorder, and a session in which the agent asks it."""
    engine, lm = recorder()
    monkeypatch.setattr(Agent, "lm", lm)
    with Session() as session:
        yield engine, session


@pytest.fixture(params=["sync", "async"])
def run(request):
    import asyncio

    def awaited(program, *inputs, **named):
        return asyncio.run(program.arun(*inputs, **named))

    return awaited if request.param == "async" else lambda program, *i, **named: program.run(*i, **named)


def test_a_variable_set_between_two_calls_changes_the_next_request(agent, run, instructions, demos):
    engine, session = agent
    run(Agent, "q", session=session)
    session.update(
        {
            "temperature": 0.1,
            "length": 5,
            "task": "Rhyme.",
            "examples": [{"question": "q1", "answer": "a1"}, {"question": "q2", "answer": "a2"}],
            "stops": ["!", "?"],
        }
    )
    run(Agent, "q", session=session)
    before, after = engine.requests
    assert (before.config.temperature, before.config.max_tokens, before.config.stop) == (0.7, 50, (".",))
    assert (after.config.temperature, after.config.max_tokens, after.config.stop) == (0.1, 5, ("!", "?"))
    assert [instructions(before), instructions(after)] == ["Answer.", "Rhyme."]
    assert [len(demos(before)), len(demos(after))] == [1, 2]


def test_a_variable_chooses_the_adapter(agent, run):
    engine, session = agent
    run(Agent, "q", session=session)
    session.set("adapter", "xml")
    engine.text = "<reasoning>r</reasoning>\n<answer>yes</answer>"
    assert run(Agent, "q", session=session) == "yes"
    assert ["<answer>" in request.system for request in engine.requests] == [False, True]


def test_a_pinned_run_asks_with_the_pinned_values(agent, run):
    engine, session = agent

    def change(request):
        session.set("temperature", 0.2)
        return "changed"

    engine.fields["answer"] = change

    class Twice(Agent):
        def forward(self, question):
            return [self.ask(question=question), self.modules["ask"](question=question)]

        async def aforward(self, question):
            await self.ask.acall(question=question)
            await self.modules["ask"].acall(question=question)

    run(Twice, "q", session=session, pin=True)
    assert engine.configs("temperature") == [0.7, 0.7]
    run(Twice, "q", session=session)
    assert engine.configs("temperature")[2:] == [0.2, 0.2]


def test_a_program_inside_a_program_reads_its_own_variables(agent, run):
    engine, session = agent

    class Pair(Program):
        temperature = defvariable(Float(), initial=9.0)
        inner = defprogram(Agent)

        def init(self):
            self.outer = Predict("question -> answer", temperature=Pair.inner.temperature, lm=Agent.lm)

        def forward(self, question):
            self.outer(question=question)
            return self.inner.forward(question)

    session.register("unrelated", Float(), initial=1.0)
    Pair.bind(session)
    session.set("inner.temperature", 0.3)
    run(Pair, "q", session=session)
    run(Pair, "q", session=session, pin=True)
    assert engine.configs("temperature") == [0.3] * 4


def test_a_module_of_the_session_reads_the_sessions_values(agent, run):
    engine, session = agent
    Agent.bind(session)
    made = Predict.create(
        "question -> answer", store_as="Predict", session=session, lm=Agent.lm, temperature=Agent.temperature
    )
    assert repr(made)[:38] == "Predict('question -> answer', lm=<dspy"
    session.set("temperature", 1.1)
    prediction = dspex.modules.execute("Predict", {"question": "q"}, session=session)
    assert prediction.answer == "some answer"
    assert engine.configs("temperature") == [1.1]


def test_no_request_of_a_module_begins_when_its_time_is_over(recorder, run):
    def late(_):
        while deadlines.remaining():
            pass
        return "some hint"

    engine, lm = recorder(hint=late)

    class Late(Program):
        def init(self):
            self.ask = wrapped(lm=lm)

        def forward(self, question):
            return self.ask(question=question)

        async def aforward(self, question):
            return await self.ask.acall(question=question)

    with (
        Session() as session,
        deadlines.within(0.2),
        pytest.raises(DeadlineExceeded, match="a request to the"),
    ):
        run(Late, "q", session=session)
    assert len(engine.requests) == 1

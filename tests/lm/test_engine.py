from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import dspy
import pytest
from dspy import lm15
from dspy.utils.exceptions import (
    ContextWindowExceededError,
    LMInvalidRequestError,
    LMUnsupportedFeatureError,
)

from dspex.errors import NoLanguageModel
from dspex.lm import AsyncLocalEngine, LocalEngine, adapter_for, local, servers


def request(lm, text, **config):
    config = {"max_tokens": 12, "temperature": 0.0, **config}
    return lm15.Request(model=lm.model, messages=(lm15.Message.user(text),), config=lm15.Config(**config))


def raw(lm, text, *, grammar=None, **config):
    extensions = {"raw": True} if grammar is None else {"raw": True, "grammar": grammar}
    return request(lm, text, extensions=extensions, **config)


def test_the_same_request_gets_the_same_answer_from_any_thread(lm):
    prompts = [f"Once upon a time a {who}" for who in ("cat", "king", "ship", "star", "tree")]
    alone = [lm(raw(lm, prompt)).text for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda prompt: lm(raw(lm, prompt)).text, reversed(prompts)))
    assert alone == together[::-1]
    assert len(set(alone)) > 1


def test_a_seed_decides_what_is_drawn(lm):
    def draw(seed):
        return lm(raw(lm, "Once upon a time", temperature=1.5, seed=seed)).text

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(4)}) > 1


def test_python_goes_on_while_the_model_thinks(lm):
    thinking, ticks = threading.Event(), 0

    def think():
        lm(raw(lm, "Once upon a time", max_tokens=60))
        thinking.set()

    thread = threading.Thread(target=think)
    thread.start()
    while not thinking.wait(0.005):
        ticks += 1
    thread.join()
    assert ticks > 5


def test_a_schema_constrains_an_answer_that_the_model_would_not_give(lm):
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": ["mauve", "teal"]}, "level": {"type": "integer"}},
        "required": ["colour", "level"],
        "additionalProperties": False,
    }
    question = "Write a poem about the sea."
    with pytest.raises(json.JSONDecodeError):
        json.loads(lm(request(lm, question, max_tokens=60)).text)
    flat = {"type": "json_schema", "schema": schema, "name": "answer", "strict": True}
    said = json.loads(lm(request(lm, question, max_tokens=60, response_format=flat)).text)
    assert said["colour"] in {"mauve", "teal"}
    assert isinstance(said["level"], int)
    assert set(said) == {"colour", "level"}


def test_the_json_adapter_of_dspy_gets_its_schema_through(lm):
    with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
        said = dspy.Predict("review -> mood: Literal['gloomy', 'sunny']")(review="A day at the sea.")
    assert said.mood in {"gloomy", "sunny"}


def test_a_grammar_constrains_a_raw_completion(lm):
    said = lm(raw(lm, "Question: Is water wet?\nAnswer:", grammar='root ::= " " ("teal" | "mauve")'))
    assert said.text in {" teal", " mauve"}
    assert said.finish_reason == "stop"


def test_the_terse_adapter_gets_labels_numbers_and_json_from_the_model(lm):
    signature = (
        dspy.Signature("review -> remark")
        .append("mood", dspy.OutputField(), Literal["gloomy", "sunny"])
        .append("stars", dspy.OutputField(), int)
        .append("tags", dspy.OutputField(), dict[Literal["food", "place"], set[str]])
    )
    with dspy.context(lm=lm, adapter=adapter_for(lm)):
        said = dspy.Predict(signature)(review="A day at the sea.")
    assert said.mood in {"gloomy", "sunny"}
    assert isinstance(said.stars, int)
    assert all(isinstance(tags, set) for tags in said.tags.values())


def test_a_long_line_ends_and_the_answer_follows(lm):
    from dspex.lm import TerseAdapter

    with dspy.context(lm=lm, adapter=TerseAdapter(line=20)):
        said = dspy.ChainOfThought("question -> answer: bool")(question="Is the sea wet?")
    assert len(said.reasoning) <= 20
    assert said.answer in {True, False}


def test_usage_and_scores_come_back(lm):
    said = lm(raw(lm, "Once upon", max_tokens=3, logprobs=2))
    assert said.finish_reason == "length"
    assert (said.usage.output_tokens, said.usage.total_tokens) == (3, said.usage.input_tokens + 3)
    assert "".join(one.token for one in said.logprobs) == said.text
    assert [len(one.top) for one in said.logprobs] == [2, 2, 2]
    said = lm(request(lm, "Hello", max_tokens=3, logprobs=1))
    assert [len(one.top) for one in said.logprobs] == [1, 1, 1]


@pytest.mark.parametrize(
    ("config", "feature"),
    [
        ({"service_tier": "fast"}, "config.service_tier"),
        ({"user_id": "me"}, "config.user_id"),
        ({"store": True}, "config.store"),
        ({"reasoning": lm15.Reasoning("low")}, "config.reasoning"),
        ({"cache": lm15.CacheConfig()}, "config.cache"),
        ({"probabilities": "required"}, "config.probabilities"),
        ({"extensions": {"best_of": 2}}, "config.extensions.best_of"),
        (
            {"extensions": {"raw": True}, "response_format": {"type": "json_object"}},
            "config.response_format with a grammar or a raw prompt",
        ),
    ],
)
def test_a_setting_that_the_model_would_ignore_is_refused(lm, config, feature):
    with pytest.raises(LMUnsupportedFeatureError) as caught:
        lm(request(lm, "Hello", **config))
    assert caught.value.message == f"a local model does not take {feature}"


def test_tools_and_pictures_are_refused(lm):
    tool = lm15.FunctionTool(name="find", description="", parameters={"type": "object"})
    asked = lm15.Request(model=lm.model, messages=(lm15.Message.user("Hello"),), tools=(tool,))
    with pytest.raises(LMUnsupportedFeatureError, match="does not take tools"):
        lm(asked)
    picture = lm15.Message.user([lm15.ImagePart(url="https://x.org/a.png", media_type="image/png")])
    with pytest.raises(LMUnsupportedFeatureError, match="a part of type 'image' in messages"):
        lm(lm15.Request(model=lm.model, messages=(picture,)))
    with pytest.raises(LMUnsupportedFeatureError, match="a raw prompt other than one user message"):
        lm(
            lm15.Request(
                model=lm.model,
                messages=(lm15.Message.user("Hello"),),
                system="Be brief.",
                config=lm15.Config(extensions={"raw": True}),
            )
        )


@pytest.mark.parametrize("seed", [-1, 2**32 - 1, 2**33])
def test_a_seed_that_llama_would_read_as_another_is_refused(lm, seed):
    with pytest.raises(LMInvalidRequestError, match="seed must be from 0 to 4294967294"):
        lm(raw(lm, "Hello", seed=seed))


def test_a_prompt_that_is_too_long_says_so_in_both_ways(lm):
    with pytest.raises(ContextWindowExceededError):
        lm(raw(lm, "word " * 5000))
    with pytest.raises(lm15.ContextLengthError):
        list(lm.engine.stream(raw(lm, "word " * 5000)))


def test_a_grammar_or_a_schema_that_cannot_be_read_is_refused(lm):
    with pytest.raises(LMInvalidRequestError):
        lm(raw(lm, "Hello", grammar="root ::= ["))
    wrong = {"type": "json_schema", "schema": {"type": "banana"}}
    with pytest.raises(LMInvalidRequestError):
        lm(request(lm, "Hello", response_format=wrong))


@pytest.mark.parametrize("make", [raw, request], ids=["raw", "chat"])
def test_a_stream_says_what_the_call_says(lm, make):
    asked = make(lm, "Once upon a time", max_tokens=8)
    whole = lm.engine.complete(asked)

    async def gather():
        return [event async for event in lm._async_engine_spec.stream(asked)]

    for events in (list(lm.engine.stream(asked)), asyncio.run(gather())):
        start, *deltas, end = events
        assert (start.type, end.type) == ("start", "end")
        assert "".join(event.delta.text for event in deltas) == whole.text
        assert len(deltas) > 1
        assert (end.finish_reason, end.usage.output_tokens) == ("length", 8)


def test_a_stream_that_is_left_ends_the_generation(lm):
    asked = raw(lm, "Once upon a time", max_tokens=2000)
    events = lm.engine.stream(asked)
    assert [next(events).type, next(events).type] == ["start", "delta"]
    events.close()
    assert [one.name for one in threading.enumerate() if one.name == "dspex-lm-stream"] == []

    async def leave():
        stream = lm._async_engine_spec.stream(asked)
        kinds = [(await anext(stream)).type, (await anext(stream)).type]
        await stream.aclose()
        return kinds

    assert asyncio.run(leave()) == ["start", "delta"]
    assert lm(raw(lm, "Question: 1+1\nAnswer:", max_tokens=2)).text


def test_a_call_can_be_awaited(lm):
    asked = raw(lm, "Question: 4+5\nAnswer:")

    async def main():
        return await asyncio.gather(*(lm.acall(asked) for _ in range(3)))

    assert {said.text for said in asyncio.run(main())} == {lm(asked).text}


def test_equal_engines_share_one_model(lm):
    other = LocalEngine(lm.engine.path, lm.engine.context, lm.engine.threads)
    assert other == lm.engine
    server = servers.server(other.path, other.context, other.threads)
    assert local().engine.load() is not lm.engine
    assert servers.server(lm.engine.path, lm.engine.context, lm.engine.threads) is server


def test_a_model_stays_in_the_process(lm):
    """Deleting a server of llama.cpp can wait for ever for its threads, so that none is deleted."""
    server = servers.server(lm.engine.path, 256, 1)  # one that no other test has asked
    # The table's reference, ours, the argument's, and one that nobody drops.
    assert sys.getrefcount(server) == 4


def test_a_program_with_a_local_model_can_be_saved_and_loaded(lm, tmp_path):
    predict = dspy.Predict("question -> answer")
    predict.set_lm(lm)
    predict.save(tmp_path / "program.json")
    again = dspy.Predict("question -> answer")
    again.load(tmp_path / "program.json", allow_unsafe_lm_state=True)
    assert again.lm.engine == lm.engine
    assert again.lm._async_engine_spec == AsyncLocalEngine(lm.engine)
    assert again.lm.kwargs == lm.kwargs


def test_nobody_else_may_use_the_port(lm):
    server = servers.server(lm.engine.path, lm.engine.context, lm.engine.threads)
    asked = urllib.request.Request(
        f"{server.listening_address}/v1/completions",
        data=b'{"prompt": "a", "max_tokens": 1}',
        headers={"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked)
    caught.value.close()
    assert caught.value.code == 401


def test_a_file_that_is_no_model_is_refused(tmp_path):
    with pytest.raises(NoLanguageModel) as caught:
        local(tmp_path / "none.gguf")
    assert str(caught.value) == f"There is no GGUF file at {str(tmp_path / 'none.gguf')!r}."
    (tmp_path / "words.gguf").write_text("words")
    with pytest.raises(NoLanguageModel) as caught:
        local(tmp_path / "words.gguf")
    assert str(caught.value) == f"{str(tmp_path / 'words.gguf')!r} is not a GGUF file."
    (tmp_path / "cut.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(NoLanguageModel) as caught:
        local(tmp_path / "cut.gguf", context=512)
    assert str(caught.value) == (
        f"llama.cpp cannot load {str(tmp_path / 'cut.gguf')!r} with a context of 512 tokens."
    )


FORK = """
import os, signal
from dspex.lm import local
from dspy import lm15

lm = local(threads=1)
asked = lm15.Request(
    model=lm.model,
    messages=(lm15.Message.user("Question: 4+5\\nAnswer:"),),
    config=lm15.Config(max_tokens=9, stop=("\\n",), temperature=0.0, extensions={"raw": True}),
)
before = lm(asked).text
pid = os.fork()
if pid == 0:
    signal.alarm(30)
    {child}
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), lm(asked).text == before)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize(
    "child",
    ["raise SystemExit(5 if lm(asked).text == before else 6)", "raise SystemExit(5)"],
    ids=["calls", "only ends"],
)
def test_a_forked_child_loads_the_model_for_itself_and_ends(child, counted):
    code = FORK.replace("{child}", child)
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=False
    )
    assert (ran.stdout, ran.stderr) == ("5 True\n", "")

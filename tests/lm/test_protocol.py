"""What is sent to llama.cpp and read from it, without asking it."""

from __future__ import annotations

import sys
from typing import Literal

import dspy
import pytest
from dspy import lm15
from dspy.utils.exceptions import AdapterParseError

from dspex.lm import TerseAdapter, extras, protocol, shapes


def request(**config):
    message = lm15.Message.user("Question: 4+5")
    return lm15.Request(model="local/some", messages=(message,), config=lm15.Config(**config))


def test_stop_words_are_sent_as_a_list():
    _, sent = protocol.body(request(stop=("\n", "END")))
    assert sent["stop"] == ["\n", "END"]


def test_a_response_format_without_a_schema_is_sent_as_it_is():
    _, sent = protocol.body(request(response_format={"type": "json_object"}))
    assert sent["response_format"] == {"type": "json_object"}


def test_what_a_tool_said_is_refused():
    asked = lm15.Request(
        model="local/some",
        messages=(lm15.Message.tool({"call-1": "9"}),),
        config=lm15.Config(),
    )
    with pytest.raises(lm15.UnsupportedFeatureError, match="a local model does not take tool messages"):
        protocol.body(asked)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        ({"code": 400, "message": "no"}, lm15.InvalidRequestError),
        ({"code": 400, "type": "exceed_context_size_error", "message": "no"}, lm15.ContextLengthError),
        ({"code": 500, "message": "no"}, lm15.ServerError),
    ],
)
def test_what_the_server_says_in_place_of_an_answer_is_raised(said, error):
    with pytest.raises(error, match="no") as raised:
        protocol.check({"error": said})
    assert type(raised.value) is error


def test_an_answer_that_counts_no_tokens_has_no_usage():
    said = {"choices": [{"text": " 9", "finish_reason": "stop"}]}
    answer = protocol.answer(request(), said)
    assert (answer.text, answer.usage, answer.finish_reason) == (" 9", lm15.Usage(), "stop")


def test_a_chunk_of_a_stream_has_the_scores_of_its_tokens():
    scored = {"token": " 9", "logprob": -0.5, "bytes": [32, 57], "id": 7, "top_logprobs": []}
    chunk = {"choices": [{"text": " 9", "finish_reason": None, "logprobs": {"content": [scored]}}]}
    event = protocol.Events(request(logprobs=1)).next(chunk)
    assert event.delta.text == " 9"
    assert [(one.token, one.logprob, one.token_id) for one in event.delta.logprobs] == [(" 9", -0.5, 7)]


def test_the_lines_of_the_outputs_are_those_of_an_example():
    written = TerseAdapter().format_assistant_message_content(
        dspy.Signature("question -> reasoning, answer"), {"reasoning": "4 + 5.", "answer": "9"}
    )
    assert written == "Reasoning: 4 + 5.\nAnswer: 9"


def test_scores_of_the_tokens_are_given_with_the_outputs():
    scores = (lm15.TokenLogprob(token=" 9", logprob=-0.5),)

    class Scoring:
        supports_raw_completion = True

        def complete(self, request):
            return lm15.Response(
                id=None,
                model=request.model,
                message=lm15.Message.assistant([lm15.TextPart(" 9\n")]),
                finish_reason="stop",
                usage=lm15.Usage(),
                logprobs=scores,
            )

    lm = dspy.LM("local/scoring", engine=Scoring(), cache=False)
    said = TerseAdapter()(lm, {}, dspy.Signature("question -> answer"), [], {"question": "4+5"})
    assert said == [{"answer": "9", "logprobs": scores}]


def test_a_label_that_was_not_offered_is_no_answer():
    class Judge(dspy.Signature):
        review: str = dspy.InputField()
        verdict: Literal["good", "bad"] = dspy.OutputField()

    assert TerseAdapter().parse(Judge, " good\n") == {"verdict": "good"}
    with pytest.raises(AdapterParseError, match="'fair' is none of 'good', 'bad'"):
        TerseAdapter().parse(Judge, " fair\n")


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int | str | None, '"4"', "4"),
        (dict[str, int] | None, '{"a": 1}', {"a": 1}),
        (Literal["one\n", "two"], '"one\\n"', "one\n"),
    ],
)
def test_what_is_not_one_plain_line_is_written_as_json(annotation, text, value):
    shape = shapes.shape(annotation, 100)
    assert shape.schema is not None
    assert shape.read(text) == value


@pytest.mark.parametrize(
    ("package", "need"), [("dspy", extras.need_dspy), ("xllamacpp", extras.need_xllamacpp)]
)
def test_a_package_that_lacks_one_of_its_own_is_not_called_missing(monkeypatch, tmp_path, package, need):
    (tmp_path / f"{package}.py").write_text("import a_package_that_it_needs")
    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError) as missing:
        need()
    assert (type(missing.value), missing.value.name) == (ModuleNotFoundError, "a_package_that_it_needs")


def test_a_stream_that_the_model_refuses_raises_where_it_is_read(lm):
    message = lm15.Message.user("Question: 4+5")
    config = lm15.Config(max_tokens=2, extensions={"raw": True, "grammar": "root ::= ("})
    asked = lm15.Request(model=lm.model, messages=(message,), config=config)
    with pytest.raises(lm15.InvalidRequestError):
        list(lm.engine.stream(asked))

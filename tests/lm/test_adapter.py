from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from typing import Any, Literal

import dspy
import pydantic
import pytest
from dspy.utils.exceptions import AdapterParseError, LMUnsupportedFeatureError

from dspex.errors import InvalidDeclaration
from dspex.lm import TerseAdapter, adapter_for


def ask(module, lm, **inputs):
    with dspy.context(lm=lm, adapter=TerseAdapter()):
        return module(**inputs)


def test_the_prompt_of_a_plain_signature_is_its_labels(recorder):
    engine, lm = recorder(" 9\n")
    ask(dspy.Predict("question -> answer"), lm, question="4+5")
    assert engine.prompt == "Question: 4+5\nAnswer:"


def test_examples_come_first_and_instructions_before_them(recorder):
    engine, lm = recorder(" 9\n")
    predict = dspy.Predict(dspy.Signature("question -> answer", "Add the numbers."))
    predict.demos = [dspy.Example(question="1+1", answer="2"), {"question": "2+2", "answer": "4"}]
    ask(predict, lm, question="4+5")
    assert (
        engine.prompt == "Add the numbers.\n\n"
        "Question: 1+1\nAnswer: 2\n\n"
        "Question: 2+2\nAnswer: 4\n\n"
        "Question: 4+5\nAnswer:"
    )


def test_reasoning_is_a_line_of_its_own(recorder):
    engine, lm = recorder(" 4 + 5 = 9.\nAnswer: 9\n")
    module = dspy.ChainOfThought("question -> answer")
    module.predict.demos = [dspy.Example(question="1+1", reasoning="1 + 1\n= 2.", answer="2")]
    said = ask(module, lm, question="4+5")
    assert engine.prompt == "Question: 1+1\nReasoning: 1 + 1 = 2.\nAnswer: 2\n\nQuestion: 4+5\nReasoning:"
    assert (said.reasoning, said.answer) == ("4 + 5 = 9.", "9")


def test_descriptions_that_somebody_wrote_are_in_the_prompt(recorder):
    class Judge(dspy.Signature):
        """Judge the review."""

        review_text: str = dspy.InputField(desc="what a visitor wrote")
        sentiment: Literal["good", "bad"] = dspy.OutputField()

    engine, lm = recorder(" good\n")
    ask(dspy.Predict(Judge), lm, review_text="Lovely.")
    assert (
        engine.prompt == "Judge the review.\nReview Text is what a visitor wrote\n\n"
        "Review Text: Lovely.\nSentiment:"
    )


def test_examples_without_a_field_come_first_and_without_an_answer_not_at_all(recorder):
    engine, lm = recorder(" r\nAnswer: a\n")
    module = dspy.ChainOfThought("question -> answer")
    module.predict.demos = [
        dspy.Example(question="whole", reasoning="r", answer="a"),
        dspy.Example(question="part", answer="a"),
        dspy.Example(question="none"),
    ]
    ask(module, lm, question="q")
    assert (
        engine.prompt == "Question: part\nAnswer: a\n\n"
        "Question: whole\nReasoning: r\nAnswer: a\n\n"
        "Question: q\nReasoning:"
    )


def test_a_history_is_earlier_examples(recorder):
    class Chat(dspy.Signature):
        history: dspy.History = dspy.InputField()
        question: str = dspy.InputField()
        answer: str = dspy.OutputField()

    engine, lm = recorder(" b\n")
    history = dspy.History(messages=[{"question": "1", "answer": "a"}])
    ask(dspy.Predict(Chat), lm, question="2", history=history)
    assert engine.prompt == "Question: 1\nAnswer: a\n\nQuestion: 2\nAnswer:"


class Colour(enum.Enum):
    RED = "red"
    DARK_BLUE = "dark blue"


class Point(pydantic.BaseModel):
    x: int
    y: int


@pytest.mark.parametrize(
    ("annotation", "said", "value"),
    [
        (str, "some words ", "some words"),
        (int, "-12", -12),
        (float, "2.5", 2.5),
        (bool, "False", False),
        (Literal["good", "bad"], "bad", "bad"),
        (Literal[1, 2], "2", 2),
        (Colour, "dark blue", Colour.DARK_BLUE),
        (str | None, "None", None),
        (Literal["good", "bad"] | None, "good", "good"),
        (int | None, "null", None),
        (list[int], "[1, 2]", [1, 2]),
        (dict[str, Any], '{"a": 1}', {"a": 1}),
        (Point, '{"x": 1, "y": 2}', Point(x=1, y=2)),
    ],
)
def test_a_line_is_read_as_its_type(recorder, annotation, said, value):
    _, lm = recorder(f" {said}\n")
    signature = dspy.Signature("question -> answer").with_updated_fields("answer", type_=annotation)
    assert ask(dspy.Predict(signature), lm, question="q").answer == value


def test_an_example_is_written_as_the_model_must_write(recorder):
    engine, lm = recorder(' red\nPlaces: [{"x":1,"y":2}]\nSure: True\n')
    signature = (
        dspy.Signature("question -> answer")
        .with_updated_fields("answer", type_=Colour)
        .append("places", dspy.OutputField(), list[Point])
        .append("sure", dspy.OutputField(), bool)
    )
    predict = dspy.Predict(signature)
    predict.demos = [
        {"question": "q", "answer": Colour.DARK_BLUE, "places": [Point(x=1, y=2)], "sure": False}
    ]
    ask(predict, lm, question="p")
    assert (
        engine.prompt == 'Question: q\nAnswer: dark blue\nPlaces: [{"x": 1, "y": 2}]\nSure: False\n\n'
        "Question: p\nAnswer:"
    )


def test_the_grammar_says_what_each_type_allows(recorder):
    engine, lm = recorder(' a\nGrade: "x"\\\nCount: 3\n')
    signature = (
        dspy.Signature("question -> reasoning")
        .append("grade", dspy.OutputField(), Literal["good", '"x"\\'])
        .append("count", dspy.OutputField(), int)
    )
    assert ask(dspy.Predict(signature), lm, question="q").grade == '"x"\\'
    assert engine.grammar == (
        r'root ::= " " [^\x20\t\r\n] [^\r\n]{0,499} "\nGrade: " ("good" | "\"x\"\\") '
        r'"\nCount: " [-]? [0-9]{1,18} "\n"'
    )
    assert engine.config.extensions["raw"] is True


def test_a_type_without_a_short_form_is_its_schema_on_one_line(recorder):
    engine, lm = recorder(" good\nSizes: [1]\n")
    signature = (
        dspy.Signature("question -> answer")
        .with_updated_fields("answer", type_=Literal["good", "bad"])
        .append("sizes", dspy.OutputField(), list[int])
    )
    ask(dspy.Predict(signature), lm, question="q")
    assert engine.grammar == (
        "%llguidance {}\n"
        r'''start: " " ("good" | "bad") "\nSizes: " json1 "\n"'''
        '\njson1: %json {"items": {"type": "integer"}, "type": "array", '
        '"x-guidance": {"whitespace_flexible": false, "lenient": true}}'
    )


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (" one\n", "no answer; was it cut by max_tokens?"),
        (" one\nAnswer: 4x\n", "answer: invalid literal for int() with base 10: '4x'"),
        ("", "no reasoning, answer; was it cut by max_tokens?"),
    ],
)
def test_an_answer_that_cannot_be_read_says_why(said, why):
    signature = dspy.Signature("question -> reasoning, answer: int")
    with pytest.raises(AdapterParseError) as caught:
        TerseAdapter().parse(signature, said)
    assert str(caught.value).startswith(why)


def test_a_number_that_was_cut_is_refused_and_a_string_is_not(recorder):
    _, lm = recorder(" 12", finish="length")
    with pytest.raises(AdapterParseError):
        ask(dspy.Predict("question -> answer: int"), lm, question="q")
    _, lm = recorder(" 12", finish="length")
    assert ask(dspy.Predict("question -> answer"), lm, question="q").answer == "12"


def test_settings_of_the_call_go_before_those_of_the_model(recorder):
    engine, lm = recorder(" a\n", temperature=0.5, max_tokens=9)
    ask(dspy.Predict("question -> answer", top_p=0.9), lm, question="q", config={"temperature": 0.25})
    assert (engine.config.temperature, engine.config.max_tokens, engine.config.top_p) == (0.25, 9, 0.9)


def test_completions_and_rollouts_of_a_seed_draw_with_seeds_of_their_own(recorder):
    engine, lm = recorder(" a\n", " b\n", " c\n", " d\n", seed=10, temperature=1.0)
    predict = dspy.Predict("question -> answer")
    assert ask(predict, lm, question="q", config={"n": 2}).completions.answer == ["a", "b"]
    ask(predict, lm.copy(rollout_id=1), question="q", config={"n": 2})
    assert [request.config.seed for request in engine.requests] == [10, 11, 12, 13]


def test_it_can_be_awaited(recorder):
    engine, lm = recorder(" 9\n")

    async def main():
        with dspy.context(lm=lm, adapter=TerseAdapter()):
            return await dspy.Predict("question -> answer").acall(question="4+5")

    assert asyncio.run(main()).answer == "9"
    assert engine.prompt == "Question: 4+5\nAnswer:"


def test_a_model_without_raw_completions_is_refused():
    lm = dspy.LM("openai/gpt-4o-mini", api_key="none", cache=False)
    with pytest.raises(LMUnsupportedFeatureError) as caught:
        ask(dspy.Predict("question -> answer"), lm, question="q")
    assert caught.value.message == (
        "TerseAdapter needs a model that takes raw completions, such as dspex.lm.local(), "
        "not 'openai/gpt-4o-mini'; use DSPy's own adapters with it"
    )


def test_an_unknown_setting_and_an_input_that_is_no_text_are_refused(recorder):
    _, lm = recorder(" a\n")
    with pytest.raises(LMUnsupportedFeatureError):
        ask(dspy.Predict("question -> answer"), lm, question="q", config={"best_of": 3})
    with pytest.raises(LMUnsupportedFeatureError):
        ask(dspy.Predict("picture: dspy.Image -> answer"), lm, picture=dspy.Image("https://x.org/a.png"))


def test_a_type_without_a_schema_is_refused(recorder):
    _, lm = recorder(" a\n")
    signature = dspy.Signature("question -> answer").with_updated_fields("answer", type_=Callable[[int], int])
    adapter = TerseAdapter()
    with pytest.raises(InvalidDeclaration, match="A language model cannot answer with"):
        adapter(lm, {}, signature, [], {"question": "q"})


def test_react_writes_its_trajectory_with_it(recorder):
    engine, lm = recorder(
        ' look\nNext Tool Name: find\nNext Tool Args: {"what": "x"}\n',
        " done\nNext Tool Name: finish\nNext Tool Args: {}\n",
        " it is y\nAnswer: y\n",
    )

    def find(what: str) -> str:
        return f"{what} is y"

    assert ask(dspy.ReAct("question -> answer", tools=[find]), lm, question="what is x?").answer == "y"
    assert "Observation 0: x is y" in engine.requests[1].messages[0].text


def test_refine_puts_its_hint_into_the_prompt(recorder):
    engine, lm = recorder(" a\n", ' too short\nAdvice: {"self": "Say more."}\n', " b\n")
    predict = dspy.Predict("question -> answer")
    predict.set_lm(lm)
    refine = dspy.Refine(predict, N=2, reward_fn=lambda _, said: float(said.answer == "b"), threshold=1.0)
    assert ask(refine, lm, question="q").answer == "b"
    assert engine.prompt.endswith("Question: q\nHint: Say more.\nAnswer:")


def test_a_local_model_and_its_copies_have_the_adapter_and_others_have_none(recorder):
    _, lm = recorder()
    assert isinstance(adapter_for(lm), TerseAdapter)
    assert isinstance(adapter_for(lm.copy(temperature=0.5)), TerseAdapter)
    assert adapter_for(dspy.LM("openai/gpt-4o-mini", api_key="none")) is None
    assert adapter_for(None) is None

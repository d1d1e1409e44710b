"""
The short prompt that small models need: earlier examples, then the question, then the label of the
answer.

    Question: 4+5
    Answer: 9

    Question: 3+6
    Answer:

A model of 135 million parameters is right in 9 of 10 such prompts and at chance under DSPy's long
ones. What comes after the label is forced by a grammar, so an answer that has all its tokens can
always be read.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dspy
from dspy import lm15
from dspy.adapters.utils import apply_output_field_defaults, format_field_value
from dspy.clients.errors import error_boundary
from dspy.signatures.signature import infer_prefix
from dspy.utils.exceptions import AdapterParseError, LMUnsupportedFeatureError

from dspex.lm import shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["TerseAdapter"]

_custom_type = "<<CUSTOM-TYPE-START-IDENTIFIER>>"


class TerseAdapter(dspy.Adapter):  # type: ignore[misc]  # dspy has no types
    """
    Renders any signature as labelled lines and asks for a raw completion.

    Every output is one line. Strings end at the newline and have at most *line* characters;
    numbers, booleans, enums and `Literal` are constrained to what their type allows; every other
    type is JSON that obeys its schema. Instructions and descriptions of fields are put first if
    somebody wrote them; DSPy's own are left out.

    It needs an engine that takes raw completions (`LocalEngine`), and raises
    `dspy.LMUnsupportedFeatureError` for other models and for inputs that are not text. Several
    completions (`n`) of a request with a seed take the seeds that follow it, and so do rollouts.
    """

    def __init__(self, callbacks: list[Any] | None = None, *, line: int = 500) -> None:
        super().__init__(callbacks=callbacks)
        self.line = line

    def __call__(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: list[Any],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        requests, options = self._requests(lm, lm_kwargs, signature, demos, inputs)
        return [self._values(signature, lm(request, **options)) for request in requests]

    async def acall(
        self,
        lm: Any,
        lm_kwargs: dict[str, Any],
        signature: Any,
        demos: list[Any],
        inputs: dict[str, Any],
    ) -> list[dict[str, Any]]:
        requests, options = self._requests(lm, lm_kwargs, signature, demos, inputs)
        return [self._values(signature, await lm.acall(request, **options)) for request in requests]

    def format(self, signature: Any, demos: list[Any], inputs: dict[str, Any]) -> list[dict[str, Any]]:
        """The prompt, as the one message that it is."""
        blocks = [self.format_system_message(signature)]
        blocks += [self._block(signature, demo, signature.fields) for demo in _ordered(signature, demos)]
        for name, field in signature.input_fields.items():
            if field.annotation is dspy.History and inputs.get(name) is not None:
                turns = inputs[name].messages
                blocks += [self._block(signature, turn, signature.fields) for turn in turns]
        first, *_ = signature.output_fields
        question = self.format_user_message_content(signature, inputs)
        blocks.append(f"{question}\n{_label(first)}:".lstrip("\n"))
        return [{"role": "user", "content": "\n\n".join(filter(None, blocks))}]

    def format_system_message(self, signature: Any) -> str:
        """
        What somebody wrote about the task and its fields; empty for a signature that is only names.
        """
        lines = [] if _is_default(signature.instructions) else [signature.instructions]
        for name, field in signature.fields.items():
            description = (field.json_schema_extra or {}).get("desc")
            if description and description != f"${{{name}}}":
                lines.append(f"{_label(name)} is {description}")
        return "\n".join(lines)

    def format_user_message_content(
        self,
        signature: Any,
        inputs: Mapping[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        """The lines of the inputs. ReAct writes its trajectory with this."""
        block = self._block(signature, inputs, signature.input_fields)
        return "\n".join(filter(None, [prefix, block, suffix]))

    def format_assistant_message_content(
        self, signature: Any, outputs: Mapping[str, Any], missing_field_message: str | None = None
    ) -> str:
        """The lines of the outputs."""
        return self._block(signature, outputs, signature.output_fields)

    def label_of(self, signature: Any, name: str) -> str | None:
        """What a model writes before the line of the output *name*; None: nothing, it is the first one."""
        return None if name == next(iter(signature.output_fields)) else _label(name)

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """
        The outputs that *completion* says. Raises `AdapterParseError` when one is missing or of
        another type.
        """
        lines = completion.split("\n")
        values: dict[str, Any] = {}
        for index, (name, field) in enumerate(signature.output_fields.items()):
            start = f"{_label(name)}: " if index else " "
            if index >= len(lines) or not lines[index].startswith(start):
                break
            try:
                values[name] = shapes.shape(field.annotation, self.line).read(lines[index][len(start) :])
            except ValueError as error:
                raise self._unread(signature, completion, values, f"{name}: {error}") from error
        values = apply_output_field_defaults(signature, values)
        missing = [name for name in signature.output_fields if name not in values]
        if missing:
            raise self._unread(
                signature, completion, values, f"no {', '.join(missing)}; was it cut by max_tokens?"
            )
        return values

    def _unread(self, signature: Any, completion: str, values: dict[str, Any], why: str) -> Exception:
        error: Exception = AdapterParseError(
            adapter_name=type(self).__name__,
            signature=signature,
            lm_response=completion,
            message=why,
            parsed_result=values,  # pyright: ignore[reportArgumentType]  # dspy asks it for keys()
        )
        return error

    def _values(self, signature: Any, response: lm15.Response) -> dict[str, Any]:
        text = response.text or ""
        values: dict[str, Any] = self.parse(signature, text)
        *_, last = signature.output_fields.values()
        # Half a string is still one, as with DSPy's own adapters; half a number is another number.
        if response.finish_reason == "length" and last.annotation is not str:
            raise self._unread(signature, text, values, "cut by max_tokens")
        if response.logprobs is not None:
            values["logprobs"] = response.logprobs
        return values

    def _requests(
        self,
        lm: Any,
        lm_kwargs: Mapping[str, Any],
        signature: Any,
        demos: list[Any],
        inputs: dict[str, Any],
    ) -> tuple[list[lm15.Request], dict[str, Any]]:
        """One request per completion, and the options of the call itself."""
        if not getattr(getattr(lm, "engine", None), "supports_raw_completion", False):
            raise LMUnsupportedFeatureError(
                f"{type(self).__name__} needs a model that takes raw completions, such as "
                f"dspex.lm.local(), not {lm.model!r}; use DSPy's own adapters with it",
                model=lm.model,
            )
        prompt = self.format(signature, demos, inputs)[0]["content"]
        if _custom_type in prompt:
            raise LMUnsupportedFeatureError(
                f"{type(self).__name__} writes plain text, and an input of "
                f"{signature.__name__} is something else",
                model=lm.model,
            )
        # An explicit Request is not merged with lm.kwargs.
        settings = {**lm.kwargs, **lm_kwargs}
        count = settings.pop("n", None) or settings.pop("num_generations", None) or 1
        settings.pop("num_generations", None)
        settings = {name: value for name, value in settings.items() if value is not None}
        options = {name: settings.pop(name) for name in ("cache", "rollout_id") if name in settings}
        message = {"role": "user", "content": prompt}
        with error_boundary(lm.model):
            request = lm15.request_from_openai_chat({"model": lm.model, "messages": [message], **settings})
        config = self._config(signature, request.config)
        if config.seed is None:
            configs = [config] * count
        else:
            first = config.seed + count * options.get("rollout_id", 0)
            configs = [replace(config, seed=first + index) for index in range(count)]
        return [replace(request, config=one) for one in configs], options

    def _config(self, signature: Any, config: lm15.Config) -> lm15.Config:
        fields = [
            (_label(name), shapes.shape(field.annotation, self.line))
            for name, field in signature.output_fields.items()
        ]
        extensions = {**(config.extensions or {}), "raw": True, "grammar": shapes.grammar(fields)}
        return replace(config, extensions=extensions)

    def _block(self, signature: Any, values: Mapping[str, Any], fields: Mapping[str, Any]) -> str:
        """A line for each of *fields* that *values* has."""
        return "\n".join(self._lines(signature, values, fields))

    def _lines(self, signature: Any, values: Mapping[str, Any], fields: Mapping[str, Any]) -> Iterator[str]:
        for name, field in fields.items():
            if name not in values or field.annotation is dspy.History:
                continue
            value = values[name]
            if name in signature.output_fields:
                write = shapes.shape(field.annotation, self.line).write or _written
                text = " ".join(write(value).split()) if value is not None else "None"
            else:
                text = format_field_value(field, value)
            yield f"{_label(name)}: {text}"


def _written(value: Any) -> str:
    return str(getattr(value, "value", value))


def _label(name: str) -> str:
    label: str = infer_prefix(name)
    return label.strip()


def _is_default(instructions: str) -> bool:
    """
    Whether DSPy made them up. A signature that got a field later keeps the sentence about the
    earlier ones.
    """
    return instructions.startswith("Given the fields ") and ", produce the fields " in instructions


def _ordered(signature: Any, demos: Iterable[Any]) -> list[Any]:
    """
    Examples that lack a field, then complete ones; without those that show no input or no output.
    """
    whole, parts = [], []
    for demo in demos:
        if all(demo.get(name) is not None for name in signature.fields):
            whole.append(demo)
        elif any(name in demo for name in signature.input_fields) and any(
            name in demo for name in signature.output_fields
        ):
            parts.append(demo)
    return parts + whole

"""
How DSPy's requests look to llama.cpp and how its answers look to DSPy. Plain functions, no I/O.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from dspy import lm15

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["EXTENSIONS", "PARAMS", "Event", "Events", "answer", "body", "check"]

Event: TypeAlias = lm15.StreamStartEvent | lm15.StreamDeltaEvent | lm15.StreamEndEvent

PARAMS = (
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "frequency_penalty",
    "presence_penalty",
    "response_format",
    "logprobs",
)
"""The settings that reach the model, as DSPy names them."""

EXTENSIONS = ("grammar", "logit_bias", "min_p", "raw", "repeat_penalty")
"""
What `Config.extensions` may hold. `raw=True` sends the one user message as it is, without a chat
template; `grammar` is GBNF (or Lark after a line `%llguidance {}`) that the output must follow.
"""

_plain = (
    "temperature",
    "max_tokens",
    "top_p",
    "top_k",
    "seed",
    "frequency_penalty",
    "presence_penalty",
)
_refused = (
    "tool_choice",
    "reasoning",
    "cache",
    "service_tier",
    "user_id",
    "store",
    "probabilities",
)


def body(request: lm15.Request) -> tuple[bool, dict[str, Any]]:
    """
    Whether *request* is a raw completion, and what to send.

    Raises `lm15.UnsupportedFeatureError` for anything that llama.cpp would ignore.
    """
    _check_known(request)
    config = request.config
    extensions = dict(config.extensions or {})
    raw = bool(extensions.pop("raw", False))
    sent = {name: getattr(config, name) for name in _plain if getattr(config, name) is not None}
    sent.update(extensions)
    if config.stop:
        sent["stop"] = list(config.stop)
    if config.response_format is not None:
        if raw or "grammar" in extensions:
            _refuse("config.response_format with a grammar or a raw prompt")
        sent["response_format"] = _response_format(config.response_format)
    if config.logprobs is not None:
        sent.update(
            {"logprobs": config.logprobs} if raw else {"logprobs": True, "top_logprobs": config.logprobs}
        )
    if raw:
        if request.system is not None or len(request.messages) != 1 or request.messages[0].role != "user":
            _refuse("messages of a raw prompt other than one user message")
        sent["prompt"] = _text(request.messages[0].parts, "messages[0]")
    else:
        sent["messages"] = _messages(request)
    return raw, sent


def check(said: Mapping[str, Any]) -> None:
    """Raise what llama.cpp answered instead of an answer."""
    error = said.get("error")
    if error is None:
        return
    message = str(error.get("message", error))
    if error.get("type") == "exceed_context_size_error":
        raise lm15.ContextLengthError(message)
    if error.get("code") == 400:
        raise lm15.InvalidRequestError(message)
    raise lm15.ServerError(message)


def answer(request: lm15.Request, said: Mapping[str, Any]) -> lm15.Response:
    """DSPy's response for what llama.cpp said."""
    check(said)
    choice = said["choices"][0]
    text = choice["text"] if "text" in choice else choice["message"]["content"]
    return lm15.Response(
        id=said.get("id"),
        model=request.model,
        message=lm15.Message.assistant([lm15.TextPart(text or "")]),
        finish_reason=_finish(choice),
        usage=_usage(said.get("usage")),
        logprobs=_logprobs(choice) if request.config.logprobs is not None else None,
    )


class Events:
    """The stream of one answer: `first()`, `next(chunk)` for each chunk, `last()`."""

    def __init__(self, request: lm15.Request) -> None:
        self._request = request
        self._finish: Any = "stop"
        self._usage = lm15.Usage()

    def first(self) -> lm15.StreamStartEvent:
        return lm15.StreamStartEvent(model=self._request.model)

    def next(self, chunk: Mapping[str, Any]) -> lm15.StreamDeltaEvent | None:
        """The text in *chunk*, if there is any."""
        check(chunk)
        if chunk.get("usage"):
            self._usage = _usage(chunk["usage"])
        text, scores = "", ()
        for choice in chunk.get("choices", ()):
            text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
            if choice.get("finish_reason"):
                self._finish = _finish(choice)
            if self._request.config.logprobs is not None:
                scores = _logprobs(choice)
        return lm15.StreamDeltaEvent(lm15.TextDelta(text, logprobs=scores)) if text else None

    def last(self) -> lm15.StreamEndEvent:
        return lm15.StreamEndEvent(finish_reason=self._finish, usage=self._usage)


def _check_known(request: lm15.Request) -> None:
    config = request.config
    if request.tools:
        _refuse("tools")
    for name in _refused:
        if getattr(config, name) is not None:
            _refuse(f"config.{name}")
    for name in config.extensions or {}:
        if name not in EXTENSIONS:
            _refuse(f"config.extensions.{name}")
    # llama.cpp keeps the low 32 bits and reads the highest value as "random".
    if config.seed is not None and not 0 <= config.seed < 2**32 - 1:
        raise lm15.InvalidRequestError(f"seed must be from 0 to {2**32 - 2} (got {config.seed})")


def _refuse(what: str) -> NoReturn:
    raise lm15.UnsupportedFeatureError(f"a local model does not take {what}", feature=what)


def _response_format(asked: Mapping[str, Any]) -> dict[str, Any]:
    if asked["type"] != "json_schema":
        return dict(asked)
    # DSPy's flat form is accepted by llama.cpp and then constrains nothing.
    inner = {"name": "output", **{name: value for name, value in asked.items() if name != "type"}}
    return {"type": "json_schema", "json_schema": inner}


def _messages(request: lm15.Request) -> list[dict[str, str]]:
    sent = []
    if request.system is not None:
        system = request.system
        sent.append(
            {
                "role": "system",
                "content": system if isinstance(system, str) else _text(system, "system"),
            }
        )
    for index, message in enumerate(request.messages):
        role = "system" if message.role == "developer" else message.role
        if role == "tool":
            _refuse("tool messages")
        sent.append({"role": role, "content": _text(message.parts, f"messages[{index}]")})
    return sent


def _text(parts: Iterable[Any], where: str) -> str:
    texts = []
    for part in parts:
        if not isinstance(part, lm15.TextPart):
            _refuse(f"a part of type {part.type!r} in {where}")
        texts.append(part.text)
    return "\n".join(texts)


def _finish(choice: Mapping[str, Any]) -> Any:
    return "length" if choice["finish_reason"] == "length" else "stop"


def _usage(counted: Mapping[str, Any] | None) -> lm15.Usage:
    if not counted:
        return lm15.Usage()
    return lm15.Usage(
        input_tokens=counted["prompt_tokens"],
        output_tokens=counted["completion_tokens"],
        total_tokens=counted["total_tokens"],
        cache_read_tokens=(counted.get("prompt_tokens_details") or {}).get("cached_tokens"),
    )


def _logprobs(choice: Mapping[str, Any]) -> tuple[lm15.TokenLogprob, ...]:
    scored = (choice.get("logprobs") or {}).get("content") or ()
    return tuple(
        lm15.TokenLogprob(
            token=one["token"],
            logprob=one["logprob"],
            bytes=tuple(one["bytes"]),
            token_id=one["id"],
            top=tuple(
                lm15.TopLogprob(
                    token=other["token"],
                    logprob=other["logprob"],
                    bytes=tuple(other["bytes"]),
                    token_id=other["id"],
                )
                for other in one.get("top_logprobs") or ()
            ),
        )
        for one in scored
    )

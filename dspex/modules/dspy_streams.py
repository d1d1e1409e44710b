"""
The text of a prediction as the language model writes it.

DSPy sends the pieces of an answer into what its settings call `send_stream`, if the predictor that asks is
one of those in `stream_listeners`. Both travel in the `dspy.context` of the call, like our settings. We
listen to the last output of the predictor that was made last, and read its first answer. What is no text,
what comes from a cache, from an LM that does not stream or in a format that we do not know, comes at the end.

No more than `pieces.ROOM` pieces wait to be taken: then whoever reads them from the engine waits. Leaving a
stream ends the answer with its next piece, and no other request is made.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from typing import Any

import anyio
import anyio.to_thread
import dspy
from dspy.utils.callback import BaseCallback

from dspex.crossing import in_thread
from dspex.modules import texts
from dspex.modules.dspy_bridge import Step
from dspex.pieces import END, AsyncChannel, Channel, Output, taker

__all__ = ["astream", "stream"]


def stream(step: Step, inputs: Mapping[str, Any]) -> Generator[str, None, Any]:
    """The pieces of the call *step* with *inputs*, and in the end its prediction."""
    channel = Channel()

    async def put(piece: str) -> None:
        channel.put(piece)  # in a loop that has nothing else to do

    heard = _Heard(step, put, channel.check)
    who = taker()
    if isinstance(who, Channel):
        who.fed_by(channel)
    if who is False:
        prediction = step.call(inputs)
        yield heard.rest(prediction)
        return prediction

    def call() -> Any:
        heard.thread = threading.get_ident()
        return step.call(inputs, heard)

    # In a thread, since DSPy gives pieces to a loop and is not to be asked for them.
    made = in_thread(lambda: anyio.run(anyio.to_thread.run_sync, call))
    made.add_done_callback(lambda _: channel.end())
    try:
        while (piece := channel.get()) is not END:
            yield piece
        prediction = made.result()
        if rest := heard.rest(prediction):
            yield rest
        return prediction
    finally:
        channel.leave()


async def astream(step: Step, inputs: Mapping[str, Any], output: Output) -> AsyncGenerator[str, None]:
    """`stream`, awaited; the prediction is given to *output*."""
    channel = AsyncChannel()
    heard = _Heard(step, channel.put, lambda: None)
    if taker() is False:
        prediction = await step.acall(inputs)
        yield heard.rest(prediction)
        output.give(prediction)
        return
    heard.thread = threading.get_ident()
    made = asyncio.ensure_future(step.acall(inputs, heard))
    made.add_done_callback(lambda _: channel.end())
    try:
        while (piece := await channel.get()) is not END:
            yield piece
        prediction = made.result()
        if rest := heard.rest(prediction):
            yield rest
        output.give(prediction)
    finally:
        made.cancel()
        await asyncio.gather(made, return_exceptions=True)


class _Heard(BaseCallback):  # type: ignore[misc]  # DSPy has no types
    """What the language model has said in one call. What DSPy calls a stream, a listener and a callback."""

    def __init__(self, step: Step, put: Callable[[str], Awaitable[None]], check: Callable[[], None]) -> None:
        self._put = put
        self._check = check
        self.thread: int | None = None
        """Where the call is made: in threads that it starts DSPy cannot send."""
        self.predictor: Any = step.predictors[-1] if step.predictors else None
        outputs = {} if self.predictor is None else self.predictor.signature.output_fields
        self._name: str = next(reversed(outputs), "")
        self._is_text = self._name in outputs and outputs[self._name].annotation is str
        self._reader: texts.Reader | None = None
        self._answers = 0
        self._given: list[str] = []

    # ---- what DSPy is told -------------------------------------------------------------------------

    def settings(self, chosen: Any, used: Any) -> dict[str, Any]:
        """What DSPy is told, where the call has *chosen* an LM, and *used* is that of the others."""
        if not self._is_text:
            return {"send_stream": None}
        asked = chosen or self.predictor.lm or used
        if not (_streams(asked, "_engine_spec") and _streams(asked, "_async_engine_spec")):
            return {"send_stream": None}
        return {"send_stream": self, "stream_listeners": [self]}

    @property
    def predict(self) -> _Heard:
        """What DSPy compares with the predictor that asks."""
        return self

    def __eq__(self, other: object) -> bool:
        if other is self.predictor:
            return self.thread == threading.get_ident()
        return self is other

    __hash__ = BaseCallback.__hash__

    # ---- what DSPy tells ---------------------------------------------------------------------------

    async def send(self, chunk: Any) -> None:
        """A piece of an answer has come."""
        self._check()
        choice = next(iter(getattr(chunk, "choices", ())), None)
        text = getattr(getattr(choice, "delta", None), "content", None)
        if text and self._answers == 0:
            if self._reader is None:
                self._reader = _reader(dspy.settings.adapter, self.predictor.signature, self._name)
            given = self._reader.read(text) if self._reader is not None else ""
            if given:
                self._given.append(given)
                await self._put(given)
        if getattr(choice, "finish_reason", None):
            self._answers += 1

    def on_lm_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._check()

    def on_tool_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        self._check()

    # ---- the end -----------------------------------------------------------------------------------

    def rest(self, prediction: Any) -> str:
        """What *prediction* says and was not given."""
        value = prediction
        if isinstance(prediction, dspy.Prediction):
            fields = prediction.toDict()
            value = fields.get(self._name, next(reversed(fields.values()), ""))
        text = value if isinstance(value, str) else str(value)
        given = "".join(self._given)
        return text[len(given) :] if text.startswith(given) else ""


def _streams(asked: Any, half: str) -> bool:
    """Whether the engine of *asked* can stream; one that DSPy makes can, and says so if the model cannot."""
    engine = getattr(asked, half, None)
    return engine is None or isinstance(engine, str) or callable(getattr(engine, "stream", None))


def _reader(adapter: Any, signature: Any, name: str) -> texts.Reader | None:
    """Reads the field *name* off an answer in the format of *adapter*; None where nobody knows the format."""
    if hasattr(adapter, "label_of"):  # the `TerseAdapter`
        return texts.line(adapter.label_of(signature, name))
    kind = dspy.ChatAdapter if adapter is None else type(adapter)
    parse = inspect.unwrap(kind.parse)
    if parse is inspect.unwrap(dspy.ChatAdapter.parse):
        return texts.chat(name)
    if parse is inspect.unwrap(dspy.XMLAdapter.parse):
        return texts.xml(name)
    if parse is inspect.unwrap(dspy.JSONAdapter.parse):
        return texts.JsonText(name)
    return None

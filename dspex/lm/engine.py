"""
A GGUF file as a DSPy engine, in this process: `dspy.LM("local/name", engine=LocalEngine(...),
async_engine=...)`.

Both halves are data: which file, how long a context, how many threads. The model itself belongs to
the process, so equal engines share its memory, and an engine may be copied, saved and sent to
another process. Any thread may call; calls to one model run one after another. At temperature 0, or
with a seed, the same request gets the same answer.

The protocol is `dspy.clients.engines.base`. A setting that the model would ignore is refused, never
dropped: DSPy shows it as `LMUnsupportedFeatureError`.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Self

import attrs
from dspy import lm15

from dspex.lm import protocol, servers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

__all__ = ["AsyncLocalEngine", "LocalEngine"]


@attrs.frozen
class LocalEngine:
    """The half that DSPy calls."""

    path: str
    """The GGUF file."""

    context: int = attrs.field(default=4096, validator=attrs.validators.ge(1))
    """Tokens that prompt and answer may have together."""

    threads: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    """
    Threads to compute with. All processes of a machine together should not have more than it has
    cores.
    """

    supports_response_schema: ClassVar[bool] = True
    supports_function_calling: ClassVar[bool] = False
    supports_reasoning: ClassVar[bool] = False
    supports_raw_completion: ClassVar[bool] = True
    """
    `Config(extensions={"raw": True, "grammar": …})` is understood; what `TerseAdapter` asks for.
    """
    supported_params: ClassVar[tuple[str, ...]] = protocol.PARAMS

    def load(self) -> Self:
        """
        Bring the model into this process, if it is not there. Raises `NoLanguageModel` or
        `MissingExtra`.
        """
        servers.server(self.path, self.context, self.threads)
        return self

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Answer one request. Raises lm15's errors, which DSPy translates."""
        return protocol.answer(request, self._ask(request))

    def stream(self, request: lm15.Request) -> Iterator[protocol.Event]:
        """Answer one request piece by piece. Closing the iterator ends the generation."""
        chunks: queue.SimpleQueue[Mapping[str, Any] | BaseException | None] = queue.SimpleQueue()
        left = threading.Event()

        def take(chunk: Mapping[str, Any]) -> bool:
            chunks.put(chunk)
            return left.is_set()

        def work() -> None:
            try:
                self._ask(request, take)
                chunks.put(None)
            except BaseException as error:  # handed to the reader, who raises it
                chunks.put(error)

        events = protocol.Events(request)
        yield events.first()
        thread = threading.Thread(target=work, name="dspex-lm-stream", daemon=True)
        thread.start()
        try:
            while (chunk := chunks.get()) is not None:
                if isinstance(chunk, BaseException):
                    raise chunk
                event = events.next(chunk)
                if event is not None:
                    yield event
        finally:
            left.set()
            thread.join()
        yield events.last()

    def dump_state(self) -> dict[str, Any]:
        """What `dspy` saves with a program. Loading needs `allow_unsafe_lm_state=True`."""
        return attrs.asdict(self)

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> Self:
        return cls(**state)

    def _ask(
        self, request: lm15.Request, take: Callable[[Mapping[str, Any]], bool] | None = None
    ) -> Mapping[str, Any]:
        """What llama.cpp says to *request*; with *take*, in chunks until it returns true."""
        raw, sent = protocol.body(request)
        server = servers.server(self.path, self.context, self.threads)
        call = server.handle_completions if raw else server.handle_chat_completions
        try:
            if take is None:
                said: Mapping[str, Any] = call(sent)
                return said
            call({**sent, "stream": True, "stream_options": {"include_usage": True}}, take)
            return {}
        except ValueError as error:  # a schema or a grammar that llama.cpp cannot read
            raise lm15.InvalidRequestError(str(error)) from error


@attrs.frozen
class AsyncLocalEngine:
    """
    The half that DSPy awaits. A cancelled stream ends its generation; a cancelled call runs to its
    end.
    """

    sync: LocalEngine

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """As `LocalEngine.complete`, on a thread."""
        return await asyncio.to_thread(self.sync.complete, request)

    async def stream(self, request: lm15.Request) -> AsyncIterator[protocol.Event]:
        """As `LocalEngine.stream`."""
        loop = asyncio.get_running_loop()
        chunks: asyncio.Queue[Mapping[str, Any] | None] = asyncio.Queue()
        left = threading.Event()

        def take(chunk: Mapping[str, Any]) -> bool:
            loop.call_soon_threadsafe(chunks.put_nowait, chunk)
            return left.is_set()

        events = protocol.Events(request)
        yield events.first()
        work = asyncio.ensure_future(asyncio.to_thread(self.sync._ask, request, take))
        work.add_done_callback(lambda _: chunks.put_nowait(None))
        try:
            while (chunk := await chunks.get()) is not None:
                event = events.next(chunk)
                if event is not None:
                    yield event
            await work
        finally:
            left.set()
            await asyncio.wait([work])
        yield events.last()

    def dump_state(self) -> dict[str, Any]:
        return self.sync.dump_state()

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> Self:
        return cls(LocalEngine.load_state(state))

"""The programs with which the contract of pools is tested; importable by every worker."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

import attrs

from dspex import Float, Integer, Program, deadlines, defvariable

__all__ = [
    "ALL",
    "Asking",
    "AsyncPieces",
    "Awaiting",
    "Broken",
    "Counting",
    "Dying",
    "Echo",
    "Exits",
    "Failing",
    "Grandchild",
    "Hangs",
    "Knobs",
    "Leaking",
    "Left",
    "Mood",
    "Moody",
    "Odd",
    "Pieces",
    "Quirky",
    "Setting",
    "Shaped",
    "Slow",
    "Stuck",
    "Timed",
    "Where",
]


class Mood(Enum):
    """One of two."""

    GOOD = "good"
    BAD = "bad"


@attrs.frozen
class Answer:
    """What `Shaped` takes and returns."""

    text: str
    mood: Mood
    scores: tuple[float, ...] = ()


class Quirky(Exception):
    """Has an `__init__` that its `args` do not fit."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


class Knobs(Program):
    """Returns its variables."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    steps = defvariable(Integer(min=0), initial=0)

    def forward(self) -> Any:
        return self.temperature, self.steps


class Echo(Program):
    """Returns its inputs."""

    def forward(self, *args: Any, **named: Any) -> Any:
        return [list(args), named]


class Where(Program):
    """Says in which process it runs, and how often it was bound and called there."""

    def init(self) -> None:
        self.calls = 0

    def forward(self, seconds: float = 0.0) -> Any:
        self.calls += 1
        time.sleep(seconds)
        return os.getpid(), id(self), self.calls


class Shaped(Program):
    """Takes and gives instances of a class."""

    def forward(self, answer: Answer) -> list[Answer]:
        return [answer, attrs.evolve(answer, text=answer.text.upper())]


class Setting(Program):
    """Sets its own variable."""

    best = defvariable(float, initial=0.0)

    def forward(self, value: float) -> float:
        self.best = value
        return self.best


class Counting(Program):
    """Writes a line into a file when it begins, and another when it ends."""

    def forward(self, path: str, seconds: float = 0.0, mark: str = "") -> int:
        file = Path(path)
        with file.open("a") as begun:
            begun.write(f"begin {mark} {os.getpid()}\n")
        time.sleep(seconds)
        with file.open("a") as ended:
            ended.write(f"end {mark} {os.getpid()}\n")
        return os.getpid()


class Slow(Program):
    """Waits, where a signal can interrupt it; says in a file whether it was."""

    def forward(self, seconds: float, path: str | None = None) -> str:
        try:
            time.sleep(seconds)
        finally:
            if path is not None:
                Path(path).write_text("left")
        return "slept"


class Awaiting(Program):
    """Waits in a loop, and says whether it is the same one each time."""

    async def aforward(self, seconds: float, path: str | None = None) -> int:
        try:
            await asyncio.sleep(seconds)
        finally:
            if path is not None:
                await asyncio.to_thread(Path(path).write_text, "left")
        return id(asyncio.get_running_loop())


class Left(Program):
    """Says what time is left."""

    async def aforward(self) -> float | None:
        return deadlines.remaining()


class Pieces(Program):
    """Yields numbers; says in a file how many, and that it was ended."""

    def forward(self, count: int, path: str | None = None, fail: bool = False) -> Iterator[int]:
        given = 0
        try:
            for number in range(count):
                given += 1
                yield number
            if fail:
                raise ValueError("no more")
        finally:
            if path is not None:
                Path(path).write_text(str(given))


class AsyncPieces(Program):
    """`Pieces`, awaited."""

    async def aforward(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            await asyncio.sleep(0)
            yield number


class Failing(Program):
    """Raises."""

    def forward(self, how: str) -> None:
        if how == "builtin":
            raise ValueError("no such thing", 7)
        if how == "quirky":
            raise Quirky(7, hint="look there")
        if how == "local":

            class Local(Exception):
                pass

            raise Local("nobody knows me")
        if how == "unsendable":
            raise ValueError(object())
        if how == "variable":
            self.session.set("temperature", 9.0)
        raise OSError(2, "gone", "/nowhere")


class Moody(Program):
    """Gives an instance."""

    def forward(self) -> Answer:
        return Answer("a", Mood.GOOD, (0.5,))


class Odd(Program):
    """Returns what cannot travel."""

    def forward(self) -> Any:
        return {"pages": [1, {"handle": threading.Lock()}]}


class Dying(Program):
    """Ends its worker."""

    def forward(self, how: str, path: str | None = None) -> None:
        if path is not None:
            with Path(path).open("a") as begun:
                begun.write("begun\n")
        if how == "exit":
            os._exit(3)
        os.kill(os.getpid(), getattr(signal, how))
        time.sleep(60)


class Stuck(Program):
    """Does not end, and not for a signal either."""

    def forward(self, how: str) -> None:
        if how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif how == "regex":  # in C, and the interpreter's lock is held
            re.match(r"(a+)+$", "a" * 64 + "b")
        elif how == "deaf":
            while True:
                try:
                    time.sleep(60)
                except BaseException:  # noqa: S112 - that is the point
                    continue
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()


class Asking(Program):
    """Calls a tool of whoever called it."""

    def forward(self, name: str, *args: Any, stream: bool = False, thread: bool = False) -> Any:
        tool = self.tools[name]
        if stream:
            return list(tool(*args))
        if thread:
            found: list[Any] = []
            other = threading.Thread(target=lambda: found.append(tool(*args)))
            other.start()
            other.join()
            return found[0]
        return tool(*args)


class Grandchild(Program):
    """Starts a process that outlives the call, and returns its number."""

    def forward(self, hang: bool = False) -> int:
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        if hang:
            sys.stdout.write(f"grandchild {child.pid}\n")
            sys.stdout.flush()
            re.match(r"(a+)+$", "a" * 64 + "b")
        return child.pid


class Broken(Program):
    """Cannot be made ready."""

    def init(self) -> None:
        raise RuntimeError("the model is not there")

    def forward(self) -> None:
        """Never runs."""


class Exits(Program):
    """Ends its worker while that starts."""

    def init(self) -> None:
        os._exit(5)

    def forward(self) -> None:
        """Never runs."""


class Hangs(Program):
    """Is never ready."""

    def init(self) -> None:
        time.sleep(600)

    def forward(self) -> None:
        """Never runs."""


class Leaking(Program):
    """Keeps so many bytes with every call."""

    kept: list[bytes] = []  # noqa: RUF012 - that is the leak

    def forward(self, size: int) -> int:
        self.kept.append(b"1" * size)
        return os.getpid()


class Timed(Program):
    """Notes how long after *due* it begins, and works a while."""

    def forward(self, path: str, due: float, seconds: float) -> None:
        with Path(path).open("a") as ledger:
            ledger.write(f"{time.monotonic() - due}\n")
        time.sleep(seconds)


ALL = [
    f"{__name__}:{name}"
    for name, one in list(globals().items())
    if isinstance(one, type) and issubclass(one, Program) and one is not Program
    if name not in {"Broken", "Exits", "Hangs"}
]
"""What a pool of the contract serves."""

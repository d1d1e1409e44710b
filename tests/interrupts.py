"""Ctrl-C at every place where it can come: what the tests of interrupts share."""

from __future__ import annotations

import dis
import gc
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import dspex

HERE = str(Path(dspex.__file__).parent)

CHECKED = {"CALL", "CALL_FUNCTION_EX", "CALL_KW", "JUMP_BACKWARD", "RESUME"}
"""After which instructions CPython handles signals; after a call if what was called is not Python."""

FINALIZERS = {"__del__", "_forget", "_forget_owned", "_forget_safe"}
"""What is raised in these reaches nobody."""


@cache
def _code_of(code: CodeType) -> bytes:
    return code.co_code  # CPython makes it anew each time


def interrupted(act: Callable[[], object], at: int) -> bool:
    """Run *act* with a KeyboardInterrupt at the place number *at* in dspex; whether there is such a place."""
    passed = -1
    before: dict[FrameType, str | None] = {}
    finalizing: set[FrameType | None] = set()

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal passed
        if event == "call":
            before[frame] = None
            frame.f_trace_opcodes, frame.f_trace_lines = True, False
            if frame.f_back in before:
                before[frame.f_back] = None
            if frame.f_code.co_name in FINALIZERS or frame.f_back in finalizing:
                finalizing.add(frame)
                return None
            return trace if frame.f_code.co_filename.startswith(HERE) else None
        if event == "opcode":
            passed += before[frame] in CHECKED
            if passed == at and before[frame] in CHECKED:
                raise KeyboardInterrupt
            before[frame] = dis.opname[_code_of(frame.f_code)[frame.f_lasti]]
        return trace

    known = sys.gettrace()
    gc.disable()  # the garbage of other tests is not what is interrupted
    sys.settrace(trace)
    try:
        act()
    except KeyboardInterrupt:
        assert passed >= at
    finally:
        sys.settrace(known)
        gc.enable()
    return passed >= at


def everywhere(begin: Callable[[], Callable[[], object]]) -> Iterator[int]:
    """
    Interrupt what *begin* returns at one place after another, each time a new one, at last nowhere; yields
    after each.

    So it tests the places of one thread; *begin* makes all anew that is tested.
    """
    for at in count():
        more = interrupted(begin(), at)
        assert more or at
        yield at
        if not more:
            return

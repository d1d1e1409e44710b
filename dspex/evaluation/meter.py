"""Counting what a run asks of language models, where DSPy does the asking."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

__all__ = ["Meter", "metered"]


class Meter:
    """
    Calls, tokens and cost of one run.

    To DSPy it is a usage tracker, and a calling module with a history: what it tells those two is counted
    once, for this run alone, whatever other threads ask the same model.
    """

    def __init__(self, outer: Any = None) -> None:
        self.calls = 0
        self.tokens = 0
        self._cost = 0.0
        self._costs = 0
        self._outer = outer
        self._lock = threading.Lock()
        self.history = self

    @property
    def cost(self) -> float | None:
        """US dollars, if every call told its cost."""
        return self._cost if self._costs == self.calls else None

    def add_usage(self, lm: str, usage: Mapping[str, Any]) -> None:
        """As DSPy tells its tracker: one call that was not answered from a cache."""
        with self._lock:
            self.calls += 1
            self.tokens += usage.get("total_tokens") or 0
        if self._outer is not None:
            self._outer.add_usage(lm, dict(usage))

    def append(self, entry: Mapping[str, Any]) -> None:
        """As DSPy tells a module's history."""
        if entry.get("cost") is not None:
            with self._lock:
                self._cost += entry["cost"]
                self._costs += 1

    def __len__(self) -> int:
        return 0

    def __bool__(self) -> bool:
        return True

    def __deepcopy__(self, memo: object) -> Meter:
        return self  # DSPy copies a tracker for each thread; what its threads ask is ours, too


@contextmanager
def metered() -> Iterator[Meter | None]:
    """Count what is asked in the block; None where DSPy is not loaded, and nothing is asked through it."""
    dspy: Any = sys.modules.get("dspy")
    if dspy is None:
        yield None
        return
    settings = dspy.settings
    meter = Meter(settings.usage_tracker)
    callers = [meter, *(settings.caller_modules or [])]
    with dspy.context(usage_tracker=meter, caller_modules=callers):
        yield meter

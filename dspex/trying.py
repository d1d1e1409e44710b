"""The verbs of a session that learn from production."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from dspex.rollouts import Guard, Rollout
    from dspex.runs import Run
    from dspex.session import Session

__all__ = ["Trying"]


class Trying:
    """What `Session` is besides: a place that hears how its runs did."""

    __slots__ = ()

    def feedback(self, run: Run, score: float) -> int:
        """
        Say how good *run* was; rollouts and bandits of this session listen. Returns how many did.

        Raises:
            InvalidValue: The run is of another session, or the score no finite number.
        """
        from dspex.feedback import Feedback

        session = cast("Session", self)
        return Feedback.of(session).give(session, run, score)

    def rollout(
        self,
        name: str,
        shares: Mapping[Any, float],
        *,
        key: str | Callable[[Mapping[str, Any]], Any] | None = None,
        guard: Guard | None = None,
    ) -> Rollout:
        """
        Give a stable share of the runs other values of *name*, and promote one or go back, by their scores.

        Args:
            name: A variable of this session.
            shares: The part of the runs for each value, the present one among them: `{"a": 0.9, "b": 0.1}`.
            key: What decides which value a run gets: the name of an input, or a function of the inputs.
            guard: The test and how many scores it needs.

        Raises:
            InvalidValue: The shares do not make 1, a value is not one of *name*'s, or these are secrets.
            RuleBroken: A rule is against one of the values.
        """
        from dspex.rollouts import Guard, Rollout

        return Rollout(cast("Session", self), name, shares, key, guard if guard is not None else Guard())

"""
Is a history of reads, writes and compare-and-sets linearizable? Wing and Gong's search with Lowe's memory.

Each variable is checked by itself: a history is linearizable exactly if those of all its variables are.
"""

from __future__ import annotations

import attrs

NEVER = float("inf")


@attrs.frozen
class Op:
    """
    One call: `read` returned *value*; `write` set *value*; `swap` set *value* where *expected* was.

    A call whose outcome is not known (`maybe`) returned never: it may happen at any time after its begin, or
    not at all.
    """

    kind: str
    name: str
    value: object
    begin: float
    end: float
    expected: object = None
    ok: bool = True
    maybe: bool = False


def linearizable(history, initial):
    """Whether *history* could have happened one call after another, each between its begin and its end."""
    names = {op.name for op in history}
    return all(_one([op for op in history if op.name == name], initial) for name in names)


def _apply(op, state):
    """The state after *op*, or None where it could not have answered what it did."""
    if op.kind == "read":
        return (state,) if op.value == state else None
    if op.kind == "write":
        return (op.value,)
    if op.maybe:
        return (op.value,) if op.expected == state else (state,)
    if op.ok:
        return (op.value,) if op.expected == state else None
    return (state,) if op.expected != state else None


def _one(ops, initial):
    ops = sorted(ops, key=lambda op: op.begin)
    ends = [NEVER if op.maybe else op.end for op in ops]
    must = sum(1 << index for index, op in enumerate(ops) if not op.maybe)
    seen = set()
    # A state is what has been done, as bits, and the value; `first` skips what is done for good.
    stack = [(0, initial)]
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        # Only a call that began before the first end of those not done can be next.
        low = NEVER
        index = 0
        candidates = []
        rest = done
        while rest & 1:
            rest >>= 1
            index += 1
        while index < len(ops) and ops[index].begin <= low:
            if not done >> index & 1:
                candidates.append(index)
                low = min(low, ends[index])
            index += 1
        for index in reversed(candidates):
            if ops[index].begin <= low:
                after = _apply(ops[index], state)
                if after is not None:
                    stack.append((done | 1 << index, after[0]))
    return False

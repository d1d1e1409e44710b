"""What the dispatcher keeps is bounded, however busy those are whom it tells."""

import asyncio

import pytest

from dspex import dispatch


def test_what_waits_for_a_busy_event_loop_is_one_change_of_each_name(session, monkeypatch):
    """The loop does not run while its thread sets: all that waits is the newest change, and one wake-up."""

    async def main():
        told, done, wakes = [], asyncio.Event(), []

        async def hear(change):
            told.append((change.name, change.new))
            if change.new == 4_999 and change.name == "a":
                done.set()

        watch = session.watch("*", hear)
        loop = asyncio.get_running_loop()
        wake = loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *a, **k: (wakes.append(a), wake(*a, **k))[1])
        waiting = []
        for value in range(5_000):
            session.set("n", value)
            session.set("a", value)
            waiting.append(len(watch.deliver.__self__._waiting))
        assert (2, 1) == (max(waiting), len(wakes))
        await asyncio.wait_for(done.wait(), 30)
        return told

    assert asyncio.run(main()) == [("n", 4_999), ("a", 4_999)]


@pytest.mark.parametrize("mode", ["latest", "all"])
def test_how_deep_a_change_is_nested_is_forgotten_with_the_change(session, monkeypatch, mode):
    """A callback makes more changes than may wait; those that nobody needs are dropped."""
    monkeypatch.setattr(dispatch, "QUEUE", 64)
    sizes, seen = [], []

    def set_many(change):
        fanout = session._fanout
        fanout._limit = 64
        for value in range(1_000):
            session.set("a", value)
            sizes.append((len(fanout._nested), len(fanout.queue)))

    session.watch("n", set_many)
    session.watch("a", seen.append, mode=mode)
    session.set("n", 1)
    assert all(nested <= queued for nested, queued in sizes)
    assert max(queued for _, queued in sizes) == (64 if mode == "latest" else 1_000)
    assert ({}, 0) == (session._fanout._nested, len(session._fanout.queue))
    assert seen[-1].new == 999

"""What the dispatcher keeps is bounded, however busy those are whom it tells."""

import asyncio

import pytest

from dspex import InvalidCall, InvalidDeclaration, dispatch


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


def test_an_object_whose_call_is_async_is_awaited(session):
    class Hears:
        told = ()

        async def __call__(self, change):
            self.told = (*self.told, change.new)
            done.set()

    async def main():
        nonlocal done
        done = asyncio.Event()
        hears = Hears()
        session.watch("n", hears)
        with pytest.raises(InvalidDeclaration, match="is async and a signal does not await"):
            session.signal("n").connect(hears)
        session.set("n", 1)
        await asyncio.wait_for(done.wait(), 30)
        return hears.told

    done = None
    assert asyncio.run(main()) == (1,)


def test_an_async_watcher_needs_a_loop(session):
    async def hear(change):
        pass

    with pytest.raises(InvalidCall) as refused:
        session.watch("n", hear)
    assert str(refused.value) == "an async watcher needs a running event loop: call it in an async function."


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

"""What is awaited on an event loop must not wait for a store there: all such verbs, and who looks."""

from __future__ import annotations

import asyncio
import threading

from dspex import Integer, Program, Session, defvariable
from dspex.rollouts import Guard


class Agent(Program):
    n = defvariable(Integer(), initial=0)
    own = defvariable(Integer(), initial=0)

    async def aforward(self):
        return self.n


class Setting(Agent):
    def init(self):
        self.n = 7


class Streaming(Program):
    n = defvariable(Integer(), initial=0)

    async def aforward(self):
        yield self.n


async def in_a_batch(session):
    async with session.batch():
        await session.aset("n", 1)
        await session.aset("a", 1)


async def in_a_claim(session):
    async with await session.aclaim(["n"], owner="tuner", ttl=30):
        await session.aset("n", 1)


async def through_a_claim(session):
    claim = await session.aclaim(["n"], owner="tuner", ttl=30)
    await claim.aset("n", 1)
    await claim.aupdate({"n": 2})
    await claim.arenew()
    await claim.arelease()


async def back_from_a_fork(session):
    async with await session.afork({"n": 1}) as fork:
        async with await fork.afork({"a": 1}) as inner:
            await inner.acommit_to_parent()
        await fork.acommit_to_parent()
    assert (session.get("n"), session.get("a")) == (1, 1)


async def on_a_bound_program(session):
    program = await Agent.abind(session)
    assert (
        0 == await program.acall() == await program.arun(pin=True) == await (await program.apinned()).acall()
    )
    assert (await program.arecord()).output == 0


async def streamed(session):
    for pin in (False, True):
        assert [0] == [piece async for piece in Streaming.astream(session=session, pin=pin)]


async def missed(session):
    began = session.revision
    await session.aset("n", 1)
    async with session.achanges("n", mode="all", since=began) as changes:
        await session.aset("n", 2)
        assert [1, 2] == [(await anext(changes)).new for _ in range(2)]


async def tried(session):
    async with await session.arollout("n", {0: 0.5, 1: 0.5}, guard=Guard()) as rollout:
        run = await rollout.arun(Agent, key="somebody")
        assert 1 == await session.afeedback(run, 1.0)
        await rollout.afeedback("somebody", 1.0)


async def opened_and_closed(session):
    async with await Session.aopen("another", store=session.ledger.store) as another:
        await another.aregister("x", Integer(), initial=0)


VERBS = {
    "aset": lambda session: session.aset("n", 1, expect=0),
    "aupdate": lambda session: session.aupdate({"n": 1, "a": 1}),
    "aswap": lambda session: session.aswap("n", lambda n: n + 1),
    "asnapshot": lambda session: session.asnapshot(),
    "ahistory": lambda session: session.ahistory(),
    "atags": lambda session: session.atags(),
    "atag": lambda session: session.atag("here"),
    "arollback": lambda session: session.arollback("n", 0),
    "aregister": lambda session: session.aregister("x", Integer(), initial=0),
    "batch": in_a_batch,
    "aclaim": in_a_claim,
    "claim": through_a_claim,
    "acommit_to_parent": back_from_a_fork,
    "aopen": opened_and_closed,
    "arun": lambda session: Agent.arun(session=session),
    "arun of one that sets": lambda session: Setting.arun(session=session),
    "arun(pin=True)": lambda session: Agent.arun(session=session, pin=True),
    "arecord": lambda session: Agent.arecord(session=session),
    "acall": on_a_bound_program,
    "astream": streamed,
    "achanges": missed,
    "rollout": tried,
    "amove_to": lambda session: session.amove_to("memory://moved", as_id="moved"),
    "adelete": lambda session: session.adelete(),
    "aclose": lambda session: session.aclose(),
}
"""Everything that has an `a` in front; each begins with a session of its own."""


class Watched:
    """Hears which thread asks a store, and can let all wait that are none of the loop."""

    def __init__(self):
        self.threads = []
        self.loop = 0
        self.go = threading.Event()
        self.go.set()

    def asked(self):
        """A store is asked, by this thread."""
        here = threading.get_ident()
        self.threads.append(here)
        if here != self.loop:
            assert self.go.wait(30)

    def hear(self, monkeypatch, owner, name):
        """Hear each call of the method *name* of the class *owner*."""
        method = getattr(owner, name)

        def noted(*arguments, **keywords):
            self.asked()
            return method(*arguments, **keywords)

        monkeypatch.setattr(owner, name, noted)

    def run(self, verb, session):
        """
        Await *verb* of *session* while the store does nothing until the loop has gone round ten times.

        Returns whether the store was asked and the loop went on, and how often the loop has asked itself.
        """
        self.threads.clear()

        async def main():
            self.loop = threading.get_ident()
            self.go.clear()
            awaited = asyncio.ensure_future(verb(session))
            try:
                while not self.threads and not awaited.done():  # noqa: ASYNC110  a thread sets it
                    await asyncio.sleep(0)
                for _ in range(10):
                    await asyncio.sleep(0)
                went_on = not awaited.done()
            finally:
                self.go.set()
            await awaited
            return went_on

        went_on = asyncio.run(main())
        return bool(self.threads) and went_on, self.threads.count(self.loop)

"""
06 Async: the same verbs with an `a` in front; one loop runs agents while another task tunes them.
"""

import asyncio

from dspex import Float, Program, Session, defvariable


class Agent(Program):
    """Waits for as long as its variable says, as for a model."""

    seconds = defvariable(Float(min=0.0, max=1.0), initial=0.01)

    async def aforward(self, question):
        await asyncio.sleep(self.seconds)
        return f"{question} answered after {self.seconds} s"


async def operator(session, answered):
    async for _ in answered:
        await session.aset("seconds", 0.02, source="operator")
        return


async def main():
    async with Session() as session:
        agent = Agent.bind(session)
        first = session.achanges("seconds")
        session.register("answers", int, initial=0)
        tuning = asyncio.create_task(operator(session, session.achanges("answers")))

        print(await agent.acall("one"))
        await session.aswap("answers", lambda count: count + 1)
        await tuning
        change = await anext(first)
        print(f"the operator set {change.name} to {change.new} meanwhile")

        runs = [Agent.arun(question, session=session, pin=True) for question in ("two", "three")]
        print(await asyncio.gather(*runs))


asyncio.run(main())

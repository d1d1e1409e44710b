"""
07 A pool: the research agent in two worker processes, one of which is killed in the middle of a run.

    python examples/07_pool.py [--engine ray]

The agent is the same as in one process; only the line that makes the pool is new. Needs a language model: the
one that `make demo` installs, or any other that `docs/lm.md` tells of.
"""

import argparse
import os
import signal
import sys

from dspex import Float, ModuleChoice, Program, Session, WorkerLost, defvariable, tool
from dspex.modules import ChainOfThought, Predict
from dspex.pool import Pool

QUESTIONS = [f"{a} + {b} =" for a, b in ((2, 3), (4, 4), (7, 1), (5, 6), (9, 2), (3, 3), (8, 5), (6, 2))]


class ResearchAgent(Program):
    """Answers a question; how it reasons can be changed while it runs, wherever it runs."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.0)
    reasoning_strategy = defvariable(ModuleChoice("Predict", "ChainOfThought"), initial="ChainOfThought")

    def init(self):
        settings = {"temperature": ResearchAgent.temperature, "max_tokens": 64}
        self.modules["Predict"] = Predict("question -> answer", **settings)
        self.modules["ChainOfThought"] = ChainOfThought("question -> answer", **settings)

    def forward(self, question):
        self.tools["started"](question=question, worker=os.getpid())
        return self.reasoning_strategy(question=question).answer, os.getpid()


def pool_of(engine):
    """The one line that differs between one machine and many."""
    if engine == "ray":
        from dspex.pool import RayPool

        return RayPool([ResearchAgent], workers=2, affinity="none")
    return Pool([ResearchAgent], workers=2, affinity="none")


def main(engine):
    workers, victims = {}, []

    @tool
    def started(question: str, worker: int) -> None:
        """Runs here, in the process that asked, whenever an agent somewhere begins."""
        workers[question] = worker
        if victims and victims[0] == question:
            victims.pop()
            os.kill(worker, signal.SIGKILL)

    with Session() as session, pool_of(engine) as pool:
        started.offer(session)
        _, worker = ResearchAgent.run(QUESTIONS[0], session=session, pool=pool)
        print(f"answered in process {worker}, this is {os.getpid()}")

        session.set("reasoning_strategy", "Predict", source="operator")
        outcomes = pool.map(ResearchAgent, QUESTIONS, session=session)
        print("answered:", sum(outcome.error is None for outcome in outcomes), "of", len(QUESTIONS))
        print("by processes:", len(set(workers.values())))

        victims.append(QUESTIONS[1])
        calls = [pool.submit(ResearchAgent, question, session=session) for question in QUESTIONS]
        for question, call in zip(QUESTIONS, calls, strict=True):
            try:
                call.result()
            except WorkerLost as lost:
                print(f"{question} {lost}")
                _, worker = ResearchAgent.run(question, session=session, pool=pool)
                print(f"{question} asked again, answered in another process: {worker != lost.pid}")
        print("the pool has", pool.stats().ready, "workers and goes on")


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--engine", choices=["local", "ray"], default="local")
    main(arguments.parse_args().engine)
    sys.exit()

"""
10 Two terminals: an agent that goes on answering while somebody sets its variables from another process.

docs/two-terminals.md has the commands around it. It answers as often as it can and prints what is new.
"""

import os
import time

from dspex import Boolean, Float, ModuleChoice, Program, Session, defvariable


def brief(country):
    return f"Paris is the capital of {country}."


def thorough(country):
    return f"The capital of {country} is Paris, which has been one since 987."


class Agent(Program):
    strategy = defvariable(ModuleChoice("brief", "thorough"), initial="thorough")
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    running = defvariable(Boolean(), initial=True)

    def init(self):
        self.modules.update(brief=brief, thorough=thorough)

    def forward(self, country):
        return f"at {self.temperature}: {self.strategy(country=country)}"


with Session(os.environ["DSPEX_SESSION"], store=os.environ["DSPEX_STORE"], source="agent") as session:
    agent = Agent.bind(session)
    said = None
    while agent.running:
        answer = agent("France")
        if answer != said:
            print(answer, flush=True)
            said = answer
        time.sleep(0.05)
    print("told to end")

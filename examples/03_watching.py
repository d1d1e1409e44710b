"""
03 Watching: who listens is told after every commit, in order; a fault in one watcher is nobody else's.
"""

import logging

from dspex import Float, Program, Session, defvariable

logging.getLogger("dspex.watch").setLevel(logging.CRITICAL)  # the failing watcher below is on purpose


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    top_p = defvariable(Float(min=0.0, max=1.0), initial=1.0)


def told(change):
    print(f"  {change.name}: {change.old} -> {change.new} at revision {change.rev}, by {change.source}")


with Session(source="03") as session:
    agent = Agent.bind(session)

    print("A function, called before set() returns:")
    watch = session.watch("temperature", told)
    session.set("temperature", 0.2)
    agent.temperature = 0.9  # an assignment is a set like any other
    watch.close()

    print("Every variable, with a watcher that fails and one that is not disturbed by it:")
    failing = session.watch("*", lambda _: 1 / 0)
    careful = session.watch("*", told)
    session.set("top_p", 0.5)
    print(f"  the first one failed {failing.errors} time(s): {failing.last_error!r}")
    failing.close()
    careful.close()

    print("As a blinker signal, of the declaration, for whatever session:")

    def anywhere(sender, change):
        print(f"  {change.name} is now {change.new} in {sender.id!r}")

    Agent.temperature.changed.connect(anywhere)
    session.set("temperature", 0.1)

    print("As an iterator that goes on where it left off, for any thread:")
    seen = session.revision
    session.set("temperature", 0.3)
    session.set("top_p", 0.8)
    with session.changes(since=seen) as changes:
        told(next(changes))
        told(next(changes))

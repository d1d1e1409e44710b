"""
04 History: several sets in one commit, compare-and-set, every value with an author, and a way back.
"""

from dspex import Float, Integer, Program, Session, VersionConflict, defvariable


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7)
    top_p = defvariable(Float(min=0.0, max=1.0), initial=1.0)
    answered = defvariable(Integer(min=0), initial=0)


with Session(source="operator") as session:
    agent = Agent.bind(session)
    session.tag("shipped")

    with session.batch({"reason": "colder answers"}):
        session.set("temperature", 0.2)
        agent.top_p = 0.5
        print("inside the batch nothing has happened yet:", agent.temperature, agent.top_p)
    print("one commit:", agent.temperature, agent.top_p, "at revision", session.revision.rev)

    for _ in range(3):
        session.swap("answered", lambda count: count + 1)  # no update is lost, whoever else swaps
    print("answered:", agent.answered)

    version = session.record("temperature").version
    session.set("temperature", 1.0, source="optimizer")
    try:
        session.set("temperature", 0.3, expect=version)
    except VersionConflict as conflict:
        print("refused:", conflict)

    print("history of temperature:")
    for change in session.history("temperature"):
        why = dict(change.metadata or {})
        print(f"  version {change.version}: {change.old} -> {change.new} by {change.source} {why or ''}")

    session.rollback("temperature", version)
    print("back to version", version, "->", agent.temperature)
    session.rollback(to="shipped")
    print("back to what was shipped ->", agent.temperature, agent.top_p, agent.answered)

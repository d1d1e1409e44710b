"""
01 Hello: a program declares a variable, a session holds its value, forward() reads it.

Needs no language model: the modules here are plain functions.
"""

from dspex import Float, InvalidValue, ModuleChoice, Program, Session, defvariable


class Greeter(Program):
    """Greets; how, can be changed while it runs."""

    warmth = defvariable(Float(min=0.0, max=1.0), initial=0.5)
    style = defvariable(ModuleChoice("plain", "shout"), initial="plain")

    def init(self):
        self.modules["plain"] = lambda name, marks: f"Hello, {name}{marks}"
        self.modules["shout"] = lambda name, marks: f"HELLO, {name.upper()}{marks}"

    def forward(self, name):
        return self.style(name=name, marks="!" * round(self.warmth * 4))


with Session() as session:
    greeter = Greeter.bind(session)
    print(greeter("Ada"))

    session.set("warmth", 1.0)  # anyone who has the session may do this
    session.set("style", "shout", {"reason": "nobody heard it"}, source="operator")
    print(greeter("Ada"), "- after two sets, read as plain attributes:", greeter.warmth)

    record = session.record("style")
    print(f"style is {record.value!r}: version {record.version}, set by {record.source}")

    try:
        session.set("warmth", 2.0)
    except InvalidValue as refusal:
        print("refused:", refusal)

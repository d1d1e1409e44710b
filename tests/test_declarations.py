"""Class bodies: what can be declared, and the sentence with which the rest fails."""

from enum import Enum
from typing import Any, Literal

import attrs
import pytest

from dspex import (
    Choice,
    DspexError,
    Float,
    Integer,
    InvalidDeclaration,
    ModuleChoice,
    Program,
    Session,
    Struct,
    Text,
    Variable,
    defprogram,
    defvariable,
)


class Mode(Enum):
    FAST = "fast"
    DEEP = "deep"


@attrs.frozen
class Limits:
    low: int = 0
    high: int = 1


class Agent(Program):
    temperature = defvariable(Float(min=0.0, max=1.5), initial=0.7, description="how daring")
    top_k = defvariable(Integer(min=1), initial=5)


class Retriever(Program):
    k = defvariable(int, initial=3)


def declare(name="Agent", bases=(Program,), annotations=None, **body):
    """Make a program class as a `class` statement would."""
    if annotations:
        body["__annotations__"] = annotations
    return type(Program)(name, bases, {"__module__": __name__, **body})


# ---- what a declaration is ---------------------------------------------------------------------------


def test_the_class_answers_with_the_declaration():
    variable = Agent.temperature
    assert isinstance(variable, Variable)
    assert ("temperature", Agent, Float(min=0.0, max=1.5), 0.7, "how daring") == (
        variable.name,
        variable.owner,
        variable.kind,
        variable.initial,
        variable.description,
    )
    assert str(variable) == "Agent.temperature"
    assert repr(variable) == "<Variable Agent.temperature: Float(min=0.0, max=1.5) initial=0.7>"


def test_the_class_of_an_instance_answers_with_the_declaration_too():
    with Session() as session:
        agent = Agent.bind(session)
        assert Agent.temperature is type(agent).temperature
        assert Agent.temperature is agent.__class__.temperature


@pytest.mark.parametrize(
    ("variable", "kind"),
    [
        (lambda: defvariable(Float(min=0.0, max=1.5), initial=0.7), Float(min=0.0, max=1.5)),
        (
            lambda: defvariable("float", initial=0.7, constraints={"min": 0, "max": 1.5}),
            Float(min=0.0, max=1.5),
        ),
        (lambda: defvariable(float, initial=1), Float()),
        (lambda: defvariable(int, initial=1), Integer()),
        (lambda: defvariable(str, initial=""), Text()),
        (lambda: defvariable(Mode, initial=Mode.FAST), Choice("fast", "deep")),
        (lambda: defvariable(Literal["a", 1], initial=1), Choice("a", 1)),
        (lambda: defvariable(Limits, initial=Limits()), Struct(Limits)),
        (
            lambda: defvariable("module", initial="A", constraints={"choices": ["A", "B"]}),
            ModuleChoice("A", "B"),
        ),
    ],
)
def test_all_spellings_make_the_same_kind(variable, kind):
    assert kind == variable().kind


def test_variables_come_in_order_parents_first():
    class Child(Agent):
        zeta = defvariable(int, initial=0)
        alpha = defvariable(int, initial=0)
        temperature = defvariable(Float(min=0.0, max=1.0), initial=0.5)

    assert list(Child.variables) == ["temperature", "top_k", "zeta", "alpha"]
    assert (Child, Agent) == (Child.temperature.owner, Child.top_k.owner)
    assert Agent.temperature.initial == 0.7


def test_variables_show_the_whole_tree():
    class Inner(Program):
        n = defvariable(int, initial=1)
        retriever = defprogram(Retriever)

    class Outer(Program):
        first = defprogram(Inner)
        m = defvariable(int, initial=2)
        second = defprogram(Retriever)

    assert list(Outer.variables) == ["first.n", "first.retriever.k", "m", "second.k"]
    assert Outer.variables["first.retriever.k"].name == "first.retriever.k"
    assert (Outer, 3) == (Outer.second.k.owner, Outer.second.k.initial)
    assert repr(Outer.second) == "<Subprogram second: Retriever>"


def test_a_program_in_a_program_has_only_its_variables():
    class Outer(Program):
        retriever = defprogram(Retriever)

    with pytest.raises(AttributeError, match="Retriever has no variable 'kk'"):
        Outer.retriever.kk  # noqa: B018


def test_a_child_may_take_a_narrower_or_equal_kind():
    class Child(Agent):
        temperature = defvariable(Float(min=0.2, max=1.0), initial=0.3)
        top_k = defvariable(Integer(min=1), initial=9)

    assert (Child.temperature.initial, Child.top_k.initial) == (0.3, 9)


def test_two_parents_bring_their_variables():
    class Both(Agent, Retriever):
        extra = defvariable(int, initial=0)

    assert {"temperature", "top_k", "k", "extra"} == set(Both.variables)
    with Session() as session:
        both = Both.bind(session)
        session.update({"k": 7, "temperature": 0.1})
        assert (both.temperature, both.top_k, both.k, both.extra) == (0.1, 5, 7, 0)


def test_a_diamond_declares_each_variable_once():
    class Left(Agent):
        left = defvariable(int, initial=1)

    class Right(Agent):
        right = defvariable(int, initial=2)

    class Bottom(Left, Right):
        pass

    assert sorted(Bottom.variables, key=["temperature", "top_k", "left", "right"].index) == [
        "temperature",
        "top_k",
        "left",
        "right",
    ]


def test_what_is_no_variable_is_left_alone():
    made = declare(limit=3, helper=lambda self: self.limit)
    made.limit = 4
    with Session() as session:
        assert made.bind(session).helper() == 4


@pytest.mark.parametrize(
    "annotation",
    [float, "float", Any, "Any", object, Variable, "Variable[float]", "NotKnownHere"],
)
def test_an_annotation_that_agrees_is_allowed(annotation):
    made = declare(annotations={"t": annotation}, t=defvariable(float, initial=0.5))
    assert list(made.variables) == ["t"]


# ---- what cannot be declared -------------------------------------------------------------------------


class Shared:
    variable = defvariable(int, initial=0)


declare("Owner", n=Shared.variable)

HIDES = (
    "Child.temperature hides the declaration of Agent.temperature. To give it another first value, "
    "declare it again: temperature = defvariable(…)."
)

REFUSED = {
    "a wrong initial value": (
        lambda: declare(t=defvariable(Float(max=1.0), initial=2.0)),
        "the initial value must be at most 1.0 (got 2.0).",
    ),
    "an initial value of the wrong type": (
        lambda: declare(n=defvariable(int, initial="many")),
        "the initial value must be an integer (got 'many').",
    ),
    "no initial value": (
        lambda: declare(n=defvariable(int)),
        "defvariable() needs an initial value: defvariable(…, initial=…).",
    ),
    "default for initial": (
        lambda: declare(n=defvariable(int, default=3)),
        "defvariable() takes no default. The first value is given as initial=…",
    ),
    "an unknown keyword": (
        lambda: declare(n=defvariable(int, initial=3, min=0)),
        "defvariable() takes no min.",
    ),
    "an unknown constraint": (
        lambda: declare(n=defvariable("float", initial=3, constraints={"maxx": 1})),
        (
            "Float has no constraint 'maxx'. Did you mean 'max'? It takes 'allow_nan', 'log', 'max', "
            "'min', 'step'."
        ),
    ),
    "min above max": (
        lambda: declare(n=defvariable(Float(min=1.0, max=0.0), initial=0.5)),
        "Float: min must be at most max, which is 0.0 (got 1.0).",
    ),
    "__init__": (
        lambda: declare(__init__=Program.init),
        (
            "Agent must not define __init__: a program is made and bound by its session. "
            "Define init(self), which runs once per bound program."
        ),
    ),
    "a name that Program has": (
        lambda: declare(run=defvariable(int, initial=0)),
        "Agent.run cannot be a variable: the name is taken by Program. Choose another.",
    ),
    "the name of the session": (
        lambda: declare(session=defvariable(int, initial=0)),
        "Agent.session cannot be a variable: the name is taken by Program. Choose another.",
    ),
    "forward as a variable": (
        lambda: declare(forward=defvariable(int, initial=0)),
        "Agent.forward cannot be a variable: the name is taken by Program. Choose another.",
    ),
    "tunable that is no answer": (
        lambda: declare(n=defvariable(int, initial=0, tunable="no")),
        "defvariable(): tunable must be True or False (got 'no').",
    ),
    "a private name": (
        lambda: declare(_n=defvariable(int, initial=0)),
        "Agent._n cannot be a variable: a name that begins with '_' is private. Choose another.",
    ),
    "one object twice": (
        lambda: declare(n=Shared.variable),
        "Agent.n is the same object as Owner.n. Declare it again.",
    ),
    "one object under two names": (
        lambda: declare(**dict.fromkeys("ab", defvariable(int, initial=0))),
        "Agent.b is the same object as Agent.a. Declare it again.",
    ),
    "a wider kind": (
        lambda: declare("Child", (Agent,), temperature=defvariable(Float(min=0.0, max=2.0), initial=1.0)),
        (
            "Child.temperature is Float(min=0.0, max=2.0), which takes what Agent.temperature refuses: "
            "Float(min=0.0, max=1.5). Declare the same kind, or a narrower one."
        ),
    ),
    "another kind": (
        lambda: declare("Child", (Agent,), temperature=defvariable(str, initial="hot")),
        (
            "Child.temperature is Text(), which takes what Agent.temperature refuses: "
            "Float(min=0.0, max=1.5). Declare the same kind, or a narrower one."
        ),
    ),
    "a plain value over a variable": (
        lambda: declare("Child", (Agent,), temperature=0.2),
        HIDES,
    ),
    "a method over a variable": (
        lambda: declare("Child", (Agent,), temperature=Program.init),
        HIDES,
    ),
    "a program over a variable": (
        lambda: declare("Child", (Agent,), temperature=defprogram(Retriever)),
        HIDES,
    ),
    "a mixin over a variable": (
        lambda: declare("Child", (type("Mixin", (), {"temperature": 0.2}), Agent)),
        HIDES,
    ),
    "parents that do not agree": (
        lambda: declare("Child", (declare("Other", k=defvariable(str, initial="")), Retriever)),
        (
            "Child.k is Text(), which takes what Retriever.k refuses: Integer(). "
            "Declare the same kind, or a narrower one."
        ),
    ),
    "an annotation that does not agree": (
        lambda: declare(annotations={"t": int}, t=defvariable(float, initial=0.5)),
        "Agent.t is annotated as int but declared as Float().",
    ),
    "an annotation as text that does not agree": (
        lambda: declare(annotations={"t": "str"}, t=defvariable(float, initial=0.5)),
        "Agent.t is annotated as str but declared as Float().",
    ),
    "an int that is annotated as bool": (
        lambda: declare(annotations={"t": bool}, t=defvariable(int, initial=1)),
        "Agent.t is annotated as bool but declared as Integer().",
    ),
    "a bool that is annotated as int": (
        lambda: declare(annotations={"t": int}, t=defvariable(bool, initial=True)),
        "Agent.t is annotated as int but declared as Boolean().",
    ),
    "an annotation beside one that is not known": (
        lambda: declare(annotations={"t": int, "u": "NotKnownHere"}, t=defvariable(float, initial=0.5)),
        "Agent.t is annotated as int but declared as Float().",
    ),
    "defprogram of no program": (
        lambda: declare(inner=defprogram(int)),
        "defprogram() takes a Program class (got <class 'int'>).",
    ),
    "the name of a variable that is too long": (
        lambda: declare(**{"n" * 129: defvariable(int, initial=0)}),
        None,
    ),
}


@pytest.mark.parametrize("body", REFUSED)
def test_a_class_body_that_cannot_work_fails_with_its_sentence(body):
    make, sentence = REFUSED[body]
    with pytest.raises(InvalidDeclaration) as refused:
        make()
    if sentence is not None:
        assert sentence == str(refused.value)
    assert isinstance(refused.value, DspexError)
    assert isinstance(refused.value, ValueError)


def test_a_class_that_failed_can_be_declared_again():
    variable = defvariable(int, initial=0)
    with pytest.raises(InvalidDeclaration):
        declare(n=variable, run=defvariable(int, initial=0))
    assert list(declare(n=variable).variables) == ["n"]


# ---- classes that are made ---------------------------------------------------------------------------


def test_assigning_on_the_class_is_refused():
    with pytest.raises(InvalidDeclaration) as refused:
        Agent.temperature = 0.2
    assert str(refused.value) == (
        "Agent.temperature is a declaration and cannot be assigned. To change its value: "
        "session.set('temperature', …), or assign on a bound program."
    )
    assert Agent.temperature.initial == 0.7


def test_assigning_on_a_program_inside_the_class_is_refused():
    class Outer(Program):
        retriever = defprogram(Retriever)

    with pytest.raises(InvalidDeclaration):
        Outer.retriever = Retriever
    with pytest.raises((InvalidDeclaration, AttributeError)):
        Outer.retriever.k = 5
    assert Outer.retriever.k.initial == 3


def test_deleting_a_declaration_is_refused():
    with pytest.raises(InvalidDeclaration) as refused:
        del Agent.temperature
    assert str(refused.value) == "Agent.temperature is a declaration and stays."


@pytest.mark.parametrize("late", [lambda: defvariable(int, initial=0), lambda: defprogram(Retriever)])
def test_a_declaration_that_comes_late_is_refused(late):
    with pytest.raises(InvalidDeclaration) as refused:
        Agent.late = late()
    assert str(refused.value) == (
        "Agent.late cannot be declared any more: the class is made. Declare it in the class body, or "
        "register it "
        "with a session."
    )
    assert not hasattr(Agent, "late")


@pytest.mark.parametrize("mapping", ["variables", "declared"])
def test_what_a_class_declares_cannot_be_changed(mapping):
    with pytest.raises(TypeError):
        getattr(Agent, mapping)["late"] = Agent.temperature


@pytest.mark.parametrize("words", [7, None, "x" * 16_385])
def test_a_description_is_text_and_no_book(words):
    with Session() as session:
        with pytest.raises(InvalidDeclaration) as caught:
            session.register("n", int, initial=0, description=words)
        assert str(caught.value).startswith(
            "the description of 'n' must be text of at most 16384 characters (got "
        )
        session.register("n", int, initial=0, description="x" * 16_384)

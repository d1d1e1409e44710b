"""What type checkers refuse; an ignore that is not needed is an error itself. Checked, never run."""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from dspex import Boolean, Float, Program, Session, Text, defprogram, defvariable


class Agent(Program):
    temperature = defvariable(Float(), initial=0.7)


wrong_text = defvariable(Text(), initial=7)  # type: ignore[misc]
wrong_float = defvariable(Float(), initial="x")  # type: ignore[misc]
wrong_flag = defvariable(Boolean(), initial="x")  # type: ignore[misc]
no_initial = defvariable(Float())  # type: ignore[call-overload]
no_program = defprogram(int)  # type: ignore[type-var]
Session(5)  # type: ignore[arg-type]
Agent.bind()  # type: ignore[call-arg]
Agent.temprature  # type: ignore[attr-defined]  # noqa: B018

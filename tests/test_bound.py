"""What a session keeps of the programs that are bound to it, and for how long."""

from dspex import Integer, Program, Session, defvariable, watching


class Pair(Program):
    a = defvariable(Integer(), initial=0)
    b = defvariable(Integer(), initial=0)


def test_nothing_stays_of_a_program_that_has_ended():
    with Session() as session:
        program, other = Pair.bind(session), Pair.bind(session)
        session.set("a", 1)
        assert (program.a, other.a) == (1, 1)
        del program
        assert len(session._programs) == 1
        del other
        assert (session._programs, session._fanout, session._rare) == ((), None, None)


def test_a_program_that_ends_while_others_are_pushed_to_keeps_none_from_it(session):
    class Pushed:
        pass

    def push(program, value):
        told.append((program, value))
        ending.clear()

    told, ending, staying = [], [Pushed()], [Pushed(), Pushed()]
    Pair.bind(session)
    session.attach(ending[0], {"a": lambda *_: None})
    for program in staying:
        session.attach(program, {"a": push})
    session.set("a", 1)
    assert [(program, 1) for program in staying] == told


def test_programs_may_come_and_go_while_others_set(together, switching):
    with Session() as session:
        kept = [Pair.bind(session)]

        def come_and_go():
            for _ in range(200):
                passing, staying = Pair.bind(session), Pair.bind(session)
                assert passing.a <= session.get("a")
                kept.append(staying)

        def write():
            for value in range(2_000):
                session.set("a", value)

        together(come_and_go, come_and_go, write)
        assert {1_999} == {program.a for program in kept}
        assert len(session._programs) == len(kept) == 401


def test_a_program_that_comes_while_the_last_one_goes_is_pushed_to(monkeypatch):
    came = []

    class Late:
        """The lock, just before which another thread binds."""

        def acquire(self, blocking=True):
            if not blocking and not came:
                came.append(None)
                came[0] = Pair.bind(session)
            return True

        def release(self):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *_):
            pass

    with Session() as session:
        goes = Pair.bind(session)
        monkeypatch.setattr(watching, "_making", Late())
        del goes
        session.set("a", 1)
        assert came[0].a == 1

"""`os.fork` of a process with threads that use sessions: the child goes on at once with whole records."""

import os

import pytest

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no os.fork"),
    pytest.mark.timeout(60),
]

BEGIN = """
import os, select, signal, sys, threading, time, warnings
from dspex import Integer, Program, Session, defvariable
from dspex.stores import MemoryStore

warnings.simplefilter("ignore", DeprecationWarning)  # that a process with threads forks is the point
sys.setswitchinterval(1e-5)


class Pair(Program):
    a = defvariable(Integer(), initial=0)
    b = defvariable(Integer(), initial=0)

    def forward(self):
        return self.a + self.b


def fork(child, seconds=5):
    "Run *child* in a forked process; its exit code, or -1 if it had to be ended."
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            child()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    ended = os.pidfd_open(pid)
    try:
        ready, _, _ = select.select([ended], [], [], seconds)
        if not ready:
            os.kill(pid, signal.SIGKILL)
    finally:
        os.close(ended)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return code if ready else -1


def children(child, count):
    "Exit codes of *count* children, one after another, up to the first that is not 0."
    codes = []
    while len(codes) < count and not any(codes):
        codes.append(fork(child))
    return codes


stop = threading.Event()


def busy(work):
    def again():
        while not stop.is_set():
            work()
    thread = threading.Thread(target=again, daemon=True)
    thread.start()
    return thread


def end(threads):
    stop.set()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a thread of the parent hangs"


session = Session("forked")
for name in ("a", "b", "n"):
    session.register(name, Integer(), initial=0)
pair = Pair.bind(session)
"""

COMMITTING = """
def write():
    value = session.get("n") + 1
    session.update({"a": value, "b": value})
    session.set("n", value)


told = []
session.watch("n", lambda change: told.append(change.new), mode="all")
threads = [busy(write) for _ in range(4)]


def child():
    snapshot = session.snapshot()
    assert snapshot["a"] == snapshot["b"] == pair.a == pair.b, dict(snapshot)
    assert session.get("n") == snapshot["n"]
    history = session.history("a")
    versions = [change.version for change in history]
    assert versions == list(range(versions[0], versions[0] + len(versions))) if versions else True
    assert not versions or versions[-1] == snapshot.records["a"].version
    seen = []
    session.watch("n", lambda change: seen.append(change.new), mode="all")
    session.set("n", -1)
    session.update({"a": -1, "b": -1})
    assert (session.get("n"), seen[-1:], pair.a, pair.b) == (-1, [-1], -1, -1)
    assert session.swap("n", lambda n: n - 1).new == -2
    with session.fork({"a": 5}) as trial:
        trial.commit_to_parent()
    assert Pair.run(session=session) == 4


codes = children(child, 200)
end(threads)
assert codes == [0] * 200, codes
session.set("n", 7)
assert told[-1] == 7
print("right")
"""


def test_200_children_of_a_process_with_4_committing_threads_go_on_at_once(script):
    assert script(BEGIN + COMMITTING) == "right\n"


EVERYTHING = """
class Other(Pair):
    pass


def batch():
    with session.batch():
        session.set("a", 1)
        session.set("b", 1)


def come_and_go():
    with Session("forked") as other, other.changes("n", mode="all") as changes:
        other.set("n", 1)
        changes.next(timeout=20)
    with Session() as private:
        private.register("n", int, initial=0)
        private.watch("n", lambda change: None)
        private.set("n", 1)


def attach():
    session.attachment(object(), object)


reader = session.changes("n", mode="all")


def read():
    try:
        reader.next(timeout=0.001)
    except TimeoutError:
        pass


threads = [busy(batch), busy(come_and_go), busy(attach), busy(read)]


def child():
    batch()
    come_and_go()
    attach()
    session.set("n", 5)
    assert Other.run(session=session) == 2
    MemoryStore().open("s").close()
    reader.close()


codes = children(child, 100)
end(threads)
assert codes == [0] * 100, codes
print("right")
"""


def test_children_find_no_lock_taken_whatever_the_threads_were_doing(script):
    assert script(BEGIN + EVERYTHING) == "right\n"


FORKING = """
threads = [busy(lambda: session.set("n", 1)), busy(lambda: MemoryStore())]
codes = []


def child():
    session.set("n", 2)


def forks():
    codes.extend(children(child, 50))


forking = [threading.Thread(target=forks, daemon=True) for _ in range(2)]
for thread in forking:
    thread.start()
for thread in forking:
    thread.join(20)
    assert not thread.is_alive(), "a forking thread hangs"
end(threads)
assert codes == [0] * 100, codes
session.set("n", 3)
assert session.get("n") == 3
print("right")
"""


def test_two_threads_may_fork_at_the_same_time(script):
    assert script(BEGIN + FORKING) == "right\n"


CALLBACK = """
seen, codes = [], []


def on_change(change):
    seen.append(change.new)
    if change.new == 1:
        codes.append(fork(child))


def child():
    session.set("n", 2)
    assert session.get("n") == 2


session.watch("n", on_change)
session.set("n", 1)
session.set("n", 3)
assert (seen, codes) == ([1, 3], [0]), (seen, codes)
print("right")
"""


def test_a_callback_may_fork(script):
    assert script(BEGIN + CALLBACK) == "right\n"


MID_DISPATCH = """
entered, go = threading.Event(), threading.Event()
seen = []


def on_change(change):
    if change.new == 1:
        entered.set()
        assert go.wait(20)
    seen.append(change.new)


session.watch("n", on_change)
writer = threading.Thread(target=session.set, args=("n", 1))
writer.start()
assert entered.wait(20)


def child():
    session.set("n", 2)
    assert seen == [2], seen


assert fork(child) == 0
go.set()
writer.join(20)
assert seen == [1]
print("right")
"""


def test_a_child_dispatches_for_itself_what_a_lost_thread_was_dispatching(script, counted):
    assert script(BEGIN + MID_DISPATCH) == "right\n"


APART = """
def child():
    session.set("n", 5)
    assert session.get("n") == 5


assert fork(child) == 0
assert session.get("n") == 0
print("right")
"""


def test_parent_and_child_do_not_share_what_they_set(script):
    assert script(BEGIN + APART) == "right\n"

"""Workers that a fork server forks: what is as with others, what differs, what is refused."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

pytest.importorskip("grpc")
if not hasattr(os, "pidfd_open"):
    pytest.skip("here workers cannot be forked", allow_module_level=True)

from dspex import ForkUnsafe, InvalidValue, UnknownProgram, WorkerLost
from dspex.pool import Pool
from dspex.testing import PoolContract
from dspex.testing import pool_programs as those
from dspex.testing.pool_programs import ALL

FORKED = {"start_method": "forkserver"}


@pytest.fixture
def forked(pool):
    """Make pools whose workers are forked."""
    return lambda programs=ALL, **settings: pool(programs, **FORKED, **settings)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Make the module `mine`, importable by workers; give its folder."""
    monkeypatch.syspath_prepend(tmp_path)

    def make(source):
        (tmp_path / "mine.py").write_text(source)
        return tmp_path

    return make


def parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


class TestForked:
    """What the contract says of starts and ends."""

    @pytest.fixture
    def make(self, forked):
        return forked

    test_idempotent = PoolContract.test_an_idempotent_call_is_run_again
    test_given_up = PoolContract.test_a_call_that_kills_every_worker_is_given_up
    test_lost = PoolContract.test_a_lost_worker_fails_its_call_and_no_other
    test_rebuilt = PoolContract.test_the_session_of_a_lost_worker_is_rebuilt
    test_ended = PoolContract.test_a_worker_that_does_not_end_its_call_is_ended


# ---- as with others ------------------------------------------------------------------------------------

ABOUT = """
import os, random, sys
import numpy
from pathlib import Path
from dspex import Program

with Path(__file__).with_name("imports").open("a") as imports:
    imports.write(f"{os.getpid()}\\n")
random.seed(1)
numpy.random.seed(1)
os.register_at_fork(after_in_child=lambda: setattr(About, "forked", True))

class About(Program):
    forked = False

    def forward(self, what):
        if what == "ids":
            return os.getpid(), os.getppid(), os.getpgrp(), os.getsid(0)
        if what == "dice":
            from dspex.rpc import link
            return random.random(), float(numpy.random.random()), link._prefix
        if what == "forked":
            return self.forked
        if what == "end":
            os._exit(0)
        if what == "files":
            return sorted(os.readlink(f"/proc/self/fd/{file}") for file in (0, 1, 2)), os.getcwd()
        return dict(os.environ), sys.path, os.environ["OMP_NUM_THREADS"]
"""


def test_workers_are_forks_of_one_process_that_has_imported_once(forked, module):
    where = module(ABOUT)
    workers = forked("mine:About", workers=3, affinity="none")
    found = {one.pid for one in workers.stats().workers}
    (server,) = {parent(pid) for pid in found}
    assert parent(server) == os.getpid()
    workers.resize(1)
    pid, above, group, leader = workers.submit("mine:About", "ids").result(30)
    assert (above, group, leader) == (server, pid, pid)
    assert (where / "imports").read_text() == f"{server}\n"
    assert workers.submit("mine:About", "forked").result(30) is True


def end(workers):
    """End the worker, so that the next call is run by another."""
    with pytest.raises(WorkerLost, match="ended with status 0"):
        workers.submit("mine:About", "end").result(30)


def test_every_worker_has_dice_of_its_own(forked, module):
    module(ABOUT)
    workers = forked("mine:About", workers=1)
    found = []
    for _ in range(3):
        found.append(workers.submit("mine:About", "dice").result(30))
        end(workers)
    assert [len(set(column)) for column in zip(*found, strict=True)] == [3, 3, 3]


@pytest.mark.parametrize("settings", [{}, {"threads": 3, "environment": {"MINE": "1", "HOME": "/"}}])
def test_a_forked_worker_finds_what_a_spawned_one_finds(pool, module, settings):
    module(ABOUT)
    for what in ("environment", "files"):
        fresh, fork = (
            pool("mine:About", workers=1, start_method=method, **settings)
            .submit("mine:About", what)
            .result(30)
            for method in ("spawn", "forkserver")
        )
        assert fresh == fork


@pytest.fixture
def output(tmp_path):
    """Let this process write into a file for a while: a function that begins it."""
    kept = os.dup(1)

    def begin():
        with (tmp_path / "output").open("w") as file:
            os.dup2(file.fileno(), 1)
        return str(tmp_path / "output")

    yield begin
    os.dup2(kept, 1)
    os.close(kept)


def test_workers_find_what_has_changed_since_the_first_was_started(forked, module, monkeypatch, output):
    where = module(ABOUT)
    workers = forked("mine:About", workers=1)

    def server():
        return workers.submit("mine:About", "ids").result(30)[1]

    servers = [server()]
    end(workers)
    assert server() == servers[0]
    (where / "elsewhere").mkdir()
    for change in (
        lambda: monkeypatch.setenv("LATER", "here"),
        lambda: monkeypatch.syspath_prepend(where / "elsewhere"),
        lambda: monkeypatch.chdir(where / "elsewhere"),
        output,
    ):
        change()
        end(workers)
        servers.append(server())
    assert len(set(servers)) == 5
    environment, path, _ = workers.submit("mine:About", "environment").result(30)
    assert (environment["LATER"], path[0]) == ("here", str(where / "elsewhere"))
    files, folder = workers.submit("mine:About", "files").result(30)
    assert (str(where / "output") in files, folder) == (True, path[0])


SCRIPT = """
import sys
from dspex import Program
from dspex.pool import Pool

print("imported", __name__)

class Mine(Program):
    def forward(self, number):
        print("runs", flush=True)
        return number + 1, __name__, sys.modules["__main__"].__name__

if __name__ == "__main__":
    sys.stdout.flush()
    with Pool([Mine], workers=2, spares=0, start_method="forkserver") as pool:
        print(Mine.run(1, pool=pool))
"""


def test_a_script_runs_its_own_programs_and_is_imported_once(script):
    assert script(SCRIPT).splitlines() == [
        "imported __main__",
        "imported __mp_main__",
        "runs",
        "(2, '__mp_main__', '__mp_main__')",
    ]


# ---- what ends -----------------------------------------------------------------------------------------


def test_what_a_worker_has_started_ends_with_it_and_how_it_ended_is_told(forked, lives, eventually):
    workers = forked(workers=1)
    child = those.Grandchild.run(pool=workers)
    with pytest.raises(WorkerLost, match="ended with status 3 while it ran") as raised:
        workers.submit(those.Dying, "exit").result(30)
    assert (raised.value.exit_code, raised.value.signal) == (3, None)
    eventually(lambda: not lives(child), "what it has started has ended")


def test_a_fork_server_that_is_killed_takes_no_worker_with_it(forked, lives, eventually):
    workers = forked(workers=1)
    before = those.Where.run(pool=workers)[0]
    server = parent(before)
    os.kill(server, signal.SIGKILL)
    eventually(lambda: not lives(server), "it has ended")
    assert those.Where.run(pool=workers)[0] == before
    child = those.Grandchild.run(pool=workers)
    with pytest.raises(WorkerLost, match="ended, and nobody knows how: its fork server had ended") as raised:
        workers.submit(those.Dying, "exit").result(30)
    assert (raised.value.exit_code, raised.value.signal) == (None, None)
    eventually(lambda: not lives(child), "what it has started has ended")
    after = those.Where.run(pool=workers)[0]
    assert parent(after) not in (server, os.getpid())
    assert workers.stats().tally.failed == 1


def test_a_fork_server_that_is_stopped_keeps_nobody_from_hearing_of_an_end(forked, lives, eventually):
    workers = forked(workers=1)
    before = those.Where.run(pool=workers)[0]
    server = parent(before)
    os.kill(server, signal.SIGSTOP)
    child = those.Grandchild.run(pool=workers)
    call = workers.submit(those.Slow, 60)
    eventually(call.running, "it runs")
    os.kill(before, signal.SIGKILL)
    with pytest.raises(WorkerLost):
        call.result(30)
    eventually(lambda: not lives(child), "what it has started has ended")
    os.kill(server, signal.SIGKILL)
    assert parent(those.Where.run(pool=workers)[0]) not in (server, os.getpid())


LEFT = """
import os
from pathlib import Path
from dspex.pool import Pool
from dspex.testing import pool_programs as those

def files():
    return sorted(Path("/proc/self/fd").iterdir())

def left(*pids):
    files = [Path(f"/proc/{pid}/stat") for pid in pids]
    return [file.parent.name for file in files if file.exists() and " Z " not in file.read_text()]

if __name__ == "__main__":
    before = files()
    with Pool([those.Where, those.Dying], workers=2, spares=1, start_method="forkserver") as pool:
        server = int(Path(f"/proc/{those.Where.run(pool=pool)[0]}/stat").read_text().split()[3])
        pool.submit(those.Dying, "SIGKILL").exception()
        os.environ["LATER"] = "here"
        pool.resize(3)
        pool.wait_ready()
        pids = [one.pid for one in pool.stats().workers]
    print(files() == before, left(server, *pids))
    Pool([those.Where], workers=2, spares=1, start_method="forkserver").close()
    print(files() == before)
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        print("no child")
"""


def test_nothing_is_left_of_a_closed_pool(script):
    assert script(LEFT).splitlines() == ["True []", "True", "no child"]


# ---- what is refused -----------------------------------------------------------------------------------


def test_a_start_method_that_there_is_not_is_named_with_the_near_one():
    with pytest.raises(InvalidValue, match=r"^start_method must be one of .* Did you mean 'forkserver'"):
        Pool(ALL, start_method="forkservr")


def test_a_system_that_cannot_fork_workers_is_told(monkeypatch):
    monkeypatch.delattr(os, "pidfd_open")
    with pytest.raises(ForkUnsafe, match=r"needs Linux, with pidfd_open .* Use \"spawn\""):
        Pool(ALL, **FORKED)


BUSY = """
import {imports}
from dspex import Program
{line}

class Mine(Program):
    def forward(self):
        return 1
"""


@pytest.mark.parametrize(
    ("imports", "line", "sentence", "facts"),
    [
        (
            "threading",
            "threading.Thread(target=threading.Event().wait, name='poller', daemon=True).start()",
            r"importing mine has started 1 thread \('poller'\): .* Do that in init\(\)",
            (["poller"], 0),
        ),
        ("socket", "kept = socket.socket()", r"importing mine has opened 1 socket:", ([], 1)),
        (
            "grpc",
            "kept = grpc.insecure_channel('localhost:1')",
            r"importing mine has started \d+ threads",
            (),
        ),
    ],
)
def test_what_cannot_be_forked_is_refused_with_its_module(module, imports, line, sentence, facts):
    module(BUSY.format(imports=imports, line=line))
    workers = Pool(["mine:Mine"], workers=2, spares=1, **FORKED)
    try:
        with pytest.raises(WorkerLost, match=f"cannot start: {sentence}") as raised:
            workers.wait_ready()
        cause = raised.value.__cause__
        assert isinstance(cause, ForkUnsafe)
        assert cause.module == "mine"
        assert not facts or facts == (cause.threads, cause.sockets)
    finally:
        workers.close()


def test_threads_that_a_fork_ends_are_no_obstacle(forked, module):
    module(BUSY.format(imports="numpy", line="numpy.ones((300, 300)) @ numpy.ones((300, 300))"))
    assert forked("mine:Mine", workers=1, threads=2).submit("mine:Mine").result(30) == 1


def test_a_module_that_cannot_be_imported_is_told_and_tried_again(module):
    where = module("raise OSError('no such disk')")
    workers = Pool(["mine:Mine"], workers=2, spares=0, restarts=1000, **FORKED)
    try:
        with pytest.raises(WorkerLost, match="cannot start: no such disk") as raised:
            workers.wait_ready()
        assert "in the fork server while it imported mine:Mine" in raised.value.__cause__.__notes__[-1]
        (where / "mine.py").write_text(BUSY.format(imports="os", line=""))
        deadline = time.monotonic() + 30
        while True:
            try:
                workers.wait_ready()
                break
            except WorkerLost:
                assert time.monotonic() < deadline
        assert workers.submit("mine:Mine").result(30) == 1
    finally:
        workers.close()


def test_a_program_that_there_is_not_is_told():
    workers = Pool(["dspex.testing.pool_programs:Ecko"], workers=1, spares=0, **FORKED)
    try:
        with pytest.raises(WorkerLost, match="Did you mean 'Echo'") as raised:
            workers.wait_ready()
        assert isinstance(raised.value.__cause__, UnknownProgram)
    finally:
        workers.close()


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("os._exit(7)", "cannot start: its fork server ended with status 7"),
        ("os.kill(os.getpid(), 9)", "cannot start: its fork server was killed by SIGKILL"),
        ("__import__('time').sleep(60)", r"cannot start: it was not ready within 0\.5 s"),
    ],
)
def test_a_fork_server_that_does_not_live_to_fork_is_told(module, line, sentence):
    module(BUSY.format(imports="os", line=line))
    workers = Pool(
        ["mine:Mine"], workers=2, spares=0, restarts=2, start=0.5 if "sleep" in line else 30, **FORKED
    )
    try:
        with pytest.raises(WorkerLost, match=sentence):
            workers.wait_ready()
        with pytest.raises(WorkerLost, match=sentence):
            workers.submit("mine:Mine").result(30)
    finally:
        workers.close()


def test_a_worker_that_cannot_be_forked_is_told_in_its_own_place(module):
    # A limit of processes does not hold for root; so the call itself fails, as it does then.
    line = "os.fork = lambda: (_ for _ in ()).throw(BlockingIOError(11, 'no more processes'))"
    module(BUSY.format(imports="os", line=line))
    workers = Pool(["mine:Mine"], workers=2, spares=0, restarts=1, **FORKED)
    try:
        with pytest.raises(WorkerLost, match=r"cannot start: .*no more processes") as raised:
            workers.wait_ready()
        assert isinstance(raised.value.__cause__, BlockingIOError)
    finally:
        workers.close()

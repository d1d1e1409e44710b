"""What is awaited sends nothing to a server from the event loop."""

import threading

import pytest
from awaited import VERBS, Watched

from dspex.rpc.link import Link


@pytest.fixture
def watched(monkeypatch):
    watched = Watched()
    for name in ("_call", "open"):
        watched.hear(monkeypatch, Link, name)
    return watched


def test_no_verb_calls_the_server_from_the_loop(store, demo, watched):
    heard = {verb: watched.run(VERBS[verb], demo(store, f"demo-{at}")) for at, verb in enumerate(VERBS)}
    assert {**dict.fromkeys(VERBS, (True, 0)), "aclose": (False, 0)} == heard  # that one waits for nobody


def test_a_fork_that_waits_for_its_server_is_in_the_way_of_no_other(session, watched, eventually, together):
    fork = session.fork()
    watched.threads.clear()
    watched.go.clear()
    forking = threading.Thread(target=session.fork)
    forking.start()
    try:
        eventually(lambda: watched.threads, "the server is asked")
        together(lambda: fork.set("n", 1), deadline=10)
    finally:
        watched.go.set()
        forking.join(30)

"""What is awaited sends nothing to a server from the event loop."""

import pytest
from awaited import VERBS, Watched

from dspex.stores.redis_calls import Calls


@pytest.fixture
def watched(monkeypatch):
    watched = Watched()
    watched.hear(monkeypatch, Calls, "call")
    return watched


def test_no_verb_sends_a_command_from_the_loop(url, stores, demo, watched):
    store = stores(url)
    heard = {verb: watched.run(VERBS[verb], demo(store, f"demo-{at}")) for at, verb in enumerate(VERBS)}
    assert {**dict.fromkeys(VERBS, (True, 0)), "aclose": (False, 0)} == heard  # that one waits for nobody

"""What is awaited does nothing with a file from the event loop."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))

from awaited import VERBS, Watched

from dspex import Integer, Session
from dspex.stores import open_store


def test_no_verb_reads_or_writes_a_file_on_the_loop(url, spy):
    watched = Watched()
    spy.before = lambda _: watched.asked()
    store, heard = open_store(url), {}
    for at, verb in enumerate(VERBS):
        with Session(f"demo-{at}", store=store) as session:
            for name in ("n", "a"):
                session.register(name, Integer(), initial=0)
            heard[verb] = watched.run(VERBS[verb], session)[1]
    store.close()
    assert dict.fromkeys(VERBS, 0) == heard

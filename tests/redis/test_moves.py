"""Sessions that move to a Redis store and away from it: whole, once, and with those who use them."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from proxy import Proxy

from dspex import Session, SessionExists, SessionMoved, SessionMoving, StoreUnavailable, errors, moving
from dspex.commits import Commit, Write
from dspex.stores import MemoryStore, redis_moving
from dspex.stores.pieces import digest
from dspex.testing.values import VALUES


def filled(session):
    session.set("n", 1)
    session.tag("good")
    session.update({"a": 5, "b": 7}, {"why": "a pair"})
    session.swap("n", lambda n: n + 1)
    session.claim(["temperature"], owner="holder", ttl=600)
    return session


def keys(server, pattern="*"):
    return [key for key in server.call("KEYS", pattern) if not key.startswith(b"dx:sessions")]


@pytest.mark.parametrize("way", ["in", "out"])
def test_a_session_is_the_same_and_its_watches_go_along(either, stores, demo, eventually, way):
    either.flush()
    store, memory = stores(either.url), MemoryStore()
    source, target = (memory, store) if way == "in" else (store, memory)
    session = filled(demo(source))
    told, before = [], digest(session.ledger.export())
    session.watch("n", lambda change: told.append((change.rev, change.value)), mode="all")
    session.move_to(target)
    assert digest(session.ledger.export()) == before
    assert session.ledger.store is target
    session.set("n", 3)
    eventually(lambda: told == [(4, 3)], "it was told once")
    with pytest.raises(SessionMoved):
        Session("demo", store=source)
    if way == "in":
        with Session("demo", store=stores(either.url)) as other:
            assert (other.get("n"), other.snapshot("good")["n"], len(other.history())) == (3, 1, 5)
            with pytest.raises(errors.Claimed):
                other.set("temperature", 1.0)
    else:
        assert {key.split(b":")[-1] for key in keys(either)} == {b"m", b"x"}


def test_a_session_of_every_kind_and_size_comes_back(valkey, stores):
    pytest.importorskip("numpy")
    valkey.flush()
    with Session("all", store=MemoryStore()) as session:
        for number, case in enumerate(sorted(VALUES)):
            if not VALUES[case].refused:
                session.register(f"v{number}", VALUES[case].kind(), initial=VALUES[case].initial)
                session.set(f"v{number}", VALUES[case].value())
        for number in range(1_200):
            session.register("count", int, initial=0)
            session.set("count", number)
        before = digest(session.ledger.export())
        session.move_to(stores(valkey.url))
        assert digest(session.ledger.export()) == before
        assert len(keys(valkey, "dx:{all}:r:*")) == 0
        session.set("count", 0)
        session.move_to(MemoryStore())
        assert session.get("count") == 0


def test_everybody_hears_where_it_went_and_nobody_hears_the_password(own, stores, demo):
    server = own("requirepass pw", tcp=True)
    url = f"redis://:pw@127.0.0.1:{server.port}"
    session, other = demo(store := stores(url)), demo(stores(url))
    session.set("n", 1)
    session.move_to(MemoryStore(), as_id="there")
    for verb in (partial(other.set, "n", 1), other.snapshot, partial(Session, "demo", store=store)):
        with pytest.raises(SessionMoved) as caught:
            verb()
        assert caught.value.session_id == "there"
    session.move_to(store, as_id="back")
    assert [one.id for one in store.sessions()] == ["back"]
    store.delete("demo")  # that it has moved is forgotten
    with demo(store) as anew:
        assert anew.get("n") == 0
    away = MemoryStore()
    with Session("s", store=away) as private:
        private.move_to(store)
        with pytest.raises(SessionMoved) as caught:
            Session("s", store=away)
    assert caught.value.url == f"redis://127.0.0.1:{server.port}"


def test_what_is_held_waits_whatever_process_it_is_of(url, stores, demo):
    session, other = demo(stores(url)), demo(stores(url))
    hold = session.ledger.hold()
    for ledger in (session.ledger, other.ledger):
        commit = Commit((Write("n", 1),), tag="t")
        for refused in (partial(ledger.put, "n", 1), partial(ledger.commit, commit), ledger.hold):
            with pytest.raises(SessionMoving):
                refused()
    done = []
    waiting = threading.Thread(target=lambda: done.append(other.set("n", 5)))
    waiting.start()
    hold.release()
    waiting.join(30)
    assert ([change.rev for change in done], session.snapshot()["n"]) == ([1], 5)


def test_a_hold_ends_by_itself_and_then_nobody_may_end_the_session(valkey, url, stores, demo):
    session = demo(stores(url))
    session.claim(["a"], owner="me", ttl=60)
    hold = session.ledger.hold()
    assert 0 < valkey.call("TTL", "dx:{demo}:h") <= 60
    valkey.call("DEL", "dx:{demo}:h")  # as its end does
    session.set("n", 1)
    with pytest.raises(errors.Claimed):
        session.set("a", 1)
    with pytest.raises(StoreUnavailable, match="was not held back all the time"):
        hold.forward("memory://", "demo")
    hold.release()
    assert session.set("n", 2).rev == 2


def test_an_id_that_is_in_use_is_refused_and_an_empty_one_is_not(url, stores, demo):
    store = stores(url)
    used, empty = demo(store), Session("empty", store=store)
    session = demo(MemoryStore(), "mine")
    for taken in ("demo", "empty"):
        with pytest.raises(SessionExists):
            store.restore(taken, session.ledger.export())
    used.set("n", 1)
    empty.close()
    session.move_to(store, as_id="empty")
    assert session.set("n", 2).rev == 1


@pytest.mark.parametrize("broken", ["_record", "_head"])
def test_what_comes_out_different_is_dropped(valkey, stores, demo, monkeypatch, broken):
    valkey.flush()
    session = filled(demo(MemoryStore()))
    right = getattr(redis_moving, broken)

    def wrong(*words):
        before, after = (b" 1 ", b" 2 ") if broken == "_record" else (b" 3 ", b" 2 ")
        return right(*words).replace(before, after, 1)

    monkeypatch.setattr(redis_moving, broken, wrong)
    for verb in (session.move_to, partial(moving.copy, "demo", session.ledger.store)):
        with pytest.raises(StoreUnavailable, match="the copy is not what was copied"):
            verb(stores(valkey.url))
        assert keys(valkey) == []
    assert session.set("n", 9).rev == 4


def test_a_server_that_has_lost_a_part_of_what_came_refuses_it(valkey, url, stores, demo, monkeypatch):
    session, store = filled(demo(MemoryStore())), stores(url)
    right = redis_moving._check_staged

    def fails_over(hold, *words):
        right(hold, *words)
        (head,) = valkey.call("KEYS", "dx:{demo}:r:*:v")
        valkey.call("HDEL", head, "")  # what was sent last had not come to the replica

    monkeypatch.setattr(redis_moving, "_check_staged", fails_over)
    with pytest.raises(StoreUnavailable, match="another one has taken over"):
        session.move_to(store)
    assert (keys(valkey), session.set("n", 9).rev) == ([], 4)


@pytest.mark.parametrize("way", ["in", "out"])
def test_lost_answers_change_nothing(own, stores, demo, tmp_path, way):
    server = own()
    beneath = stores(server.url)
    with Proxy(server.path, str(tmp_path / "proxy")) as proxy:
        through = stores(f"redis+unix://{proxy.listen}")
        stop = threading.Event()

        def lose():
            while not stop.wait(0.01):
                proxy.drop_down = True
                stop.wait(0.004)
                proxy.drop_down = False
                proxy.reset()

        loser = threading.Thread(target=lose, daemon=True)
        loser.start()
        try:
            for number in range(10):
                memory = MemoryStore()
                source, target = (memory, through) if way == "in" else (through, memory)
                session = filled(demo(source, f"s{number}"))
                before = digest(session.ledger.export())
                session.move_to(target)
                assert digest(session.ledger.export()) == before
                assert session.set("n", 9).rev == 4
        finally:
            stop.set()
            loser.join(10)
            proxy.heal()
        assert len(beneath.sessions()) == (10 if way == "in" else 0)
        assert keys(server, "dx:*:r:*") == keys(server, "dx:*:h") == []


def test_a_source_that_does_not_say_whether_it_let_go_costs_nothing(own, stores, demo, monkeypatch):
    server = own()
    session, target = filled(demo(stores(f"{server.url}?deadline=0.5"))), MemoryStore()
    forward = redis_moving.RedisHold.forward

    def frozen(hold, *words):
        server.freeze()
        try:
            forward(hold, *words)
        finally:
            server.thaw()

    monkeypatch.setattr(redis_moving.RedisHold, "forward", frozen)
    with pytest.raises(StoreUnavailable, match="is not known") as caught:
        session.move_to(target)
    assert "look at both" in caught.value.__notes__[0]
    with Session("demo", store=target) as kept:
        assert kept.get("n") == 2


def test_a_server_that_dies_in_the_middle_keeps_the_session_where_it_was(own, stores, demo, monkeypatch):
    server, memory = own(), MemoryStore()
    session, store = filled(demo(memory)), stores(f"{server.url}?deadline=0.5")
    right = redis_moving._arrive
    monkeypatch.setattr(redis_moving, "_arrive", lambda *words: (server.kill(), right(*words)))
    with pytest.raises(StoreUnavailable):
        session.move_to(store)
    assert session.set("n", 9).rev == 4


def test_a_session_that_has_counted_too_far_is_refused(url, stores, demo):
    document = moving.export_session(filled(demo(MemoryStore()))).replace('"rev": 3', '"rev": 30000000000000')
    with pytest.raises(errors.LimitExceeded, match="a Redis store counts to 10000000000000"):
        moving.import_session(document, stores(url))

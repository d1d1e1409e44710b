"""What a `Secret` holds is in nothing that is printed: no repr, no sentence, no log."""

import pytest

from dspex import DspexError, InvalidValue, Secret
from dspex.errors import without_login
from dspex.optimizers import Bandit
from dspex.stores import open_store

SECRETS = ("hunter22", "sesame open")


@pytest.fixture
def opened(session):
    session.register("key", Secret(max_length=12), initial="sesame open")
    session.set("key", "hunter22", {"why": "rotation"})
    session.register("number", int, initial=0)
    return session


SHOWN = {
    "session": lambda s: s,
    "record": lambda s: s.record("key"),
    "change": lambda s: s.set("key", "hunter22"),
    "receipt": lambda s: s.update({"key": "hunter22"}),
    "history": lambda s: s.history("key"),
    "snapshot": lambda s: s.snapshot(),
    "records of a snapshot": lambda s: s.snapshot().records,
    "declaration": lambda s: s.variables["key"],
    "change of a batch": lambda s: s.batch().add("key", "hunter22", None, None, None),
    "fork": lambda s: s.fork({"key": "hunter22"}).snapshot(),
    "signal": lambda s: s.signal("key"),
}


@pytest.mark.parametrize("what", SHOWN)
def test_a_secret_is_in_no_repr(opened, what):
    shown = SHOWN[what](opened)
    for text in (repr(shown), str(shown), f"{[shown]}"):
        assert not [secret for secret in SECRETS if secret in text]


def test_a_secret_is_in_no_sentence(opened):
    calls = [
        lambda: opened.set("key", "hunter22" * 9),
        lambda: opened.set("key", "hunter22", expect=9),
        lambda: opened.rollback("key", 9),
        lambda: opened.register("key", Secret(), initial="hunter22"),
        lambda: opened.register("other", Secret(max_length=3), initial="hunter22"),
        lambda: opened.update({"key": "hunter22", "nowhere": 1}),
    ]
    calls.append(lambda: opened.rollout("key", {opened.get("key"): 0.5, "sesame open": 0.5}))
    calls.append(lambda: Bandit(opened, "key", values=["hunter22", "sesame open"]))
    calls.append(lambda: opened.check("number", opened.get("key")))
    opened.claim(["key"], owner="me", ttl=60)
    calls.append(lambda: opened.set("key", "hunter22"))
    for call in calls:
        with pytest.raises(DspexError) as refused:
            call()
        text = f"{refused.value} {refused.value!r} {refused.value.facts}"
        assert not [secret for secret in SECRETS if secret in text]


def test_a_secret_is_in_no_log(opened, caplog):
    def broken(change):
        raise RuntimeError("broken")

    opened.watch("key", broken)
    opened.set("key", "hunter22")
    assert len(caplog.records) == 1
    assert not [secret for secret in SECRETS if secret in caplog.text]


def test_the_value_of_a_secret_is_still_the_secret(opened):
    assert (opened.get("key"), opened.snapshot()["key"]) == ("hunter22", "hunter22")
    assert f"Bearer {opened.get('key')}" == "Bearer hunter22"
    assert isinstance(opened.get("key"), str)
    assert opened.history("key")[-1].new == "hunter22"


LOGINS = (
    "redsi://app:hunter22@db",
    "redis://app:hunter22@db:port",
    "redis://app:hunter22/0@db",
    "redis://app:hunter22?x@db:y",
    "grpc://app:hunter22@db:7000",
    "redis://app:hunter22@[db",
)


@pytest.mark.parametrize("url", LOGINS)
def test_a_login_is_in_no_sentence_about_an_address(url):
    with pytest.raises(DspexError) as refused:
        open_store(url)
    assert "hunter22" not in f"{refused.value} {refused.value!r} {refused.value.facts}"


def test_a_login_is_not_told_with_the_storage_of_a_study():
    from dspex.optimizers.storage import unusable

    refused = unusable("mysql://app:hunter22@db/studies", ValueError())
    assert str(refused) == "the study storage 'mysql://db/studies' cannot be used: ValueError"
    assert "hunter22" not in repr(refused.facts)


def test_a_path_is_no_login():
    assert without_login("sqlite:////home/me@home/agent.db") == "sqlite:////home/me@home/agent.db"
    assert without_login("redis://me@host/0") == "redis://host/0"


@pytest.mark.parametrize("url", ["redis://[x", "grpc://[::1", "sqlite://[x", "valkey+embedded://[x"])
def test_what_is_no_url_is_refused(url):
    with pytest.raises(InvalidValue, match=r"^the URL of a store must be a URL \("):
        open_store(url)

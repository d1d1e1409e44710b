"""Connections by TLS, with certificates of an authority of the test's own."""

from __future__ import annotations

import pytest
import trustme
from redis_servers import free_port, start_redis

from dspex import StoreUnavailable
from dspex.stores.redis_url import Timing


@pytest.fixture
def secured(own, tmp_path):
    """A server that is reached by TLS, besides its socket; its port, and the file of its authority."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    def start(name="localhost"):
        issued = authority.issue_cert(name)
        issued.private_key_pem.write_to_path(tmp_path / "key.pem")
        issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        port = free_port()
        own(
            f"tls-port {port}",
            f"tls-cert-file {tmp_path}/cert.pem",
            f"tls-key-file {tmp_path}/key.pem",
            f"tls-ca-cert-file {tmp_path}/ca.pem",
            "tls-auth-clients no",
            start=start_redis,  # the package of Valkey is built without TLS
        )
        return port, tmp_path / "ca.pem"

    return start


def test_sessions_go_through_tls(secured, stores, demo, eventually):
    port, ca = secured()
    url = f"rediss://localhost:{port}?ca={ca}"
    here, there = demo(stores(url)), demo(stores(url))
    told = []
    there.watch("*", told.append, mode="all")
    for number in range(100):
        here.set("n", number)
    here.set("note", "x" * 500_000)  # more than one record of TLS
    eventually(lambda: len(told) == 101, "all of it was pushed")
    assert (there.get("n"), len(there.get("note"))) == (99, 500_000)
    assert (here.ledger.peer.cuts, there.ledger.peer.cuts) == (0, 0)


@pytest.mark.parametrize("wrong", ["authority", "name", "no TLS"])
def test_who_cannot_be_trusted_is_told_nothing(secured, stores, tmp_path, wrong):
    port, ca = secured("elsewhere.example" if wrong == "name" else "localhost")
    if wrong == "authority":
        ca = tmp_path / "other.pem"
        trustme.CA().cert_pem.write_to_path(ca)
    scheme, more = ("redis", "") if wrong == "no TLS" else ("rediss", f"&ca={ca}")
    url = f"{scheme}://:secret@localhost:{port}?deadline=0.5{more}"
    with pytest.raises(StoreUnavailable) as caught:
        stores(url, timing=Timing().divided(20)).open("s")
    assert "secret" not in str(caught.value)
    assert ("certificate" in str(caught.value).lower()) == (wrong != "no TLS")

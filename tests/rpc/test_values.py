"""Values come back bit for bit, whatever they are and however they went."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from soak import LIMIT, often

from dspex import Boolean, Float, Integer, ListOf, Session, Text

pytestmark = pytest.mark.timeout(LIMIT)

KINDS = {
    "float": (Float(allow_nan=True), 0.0, st.floats()),
    "integer": (Integer(), 0, st.integers(-(2**63), 2**63 - 1)),
    "text": (Text(), "", st.text(st.characters(codec="utf-8"))),
    "boolean": (Boolean(), False, st.booleans()),
    "floats": (ListOf(Float(allow_nan=True)), (), st.lists(st.floats(), max_size=20)),
    "texts": (ListOf(Text()), (), st.lists(st.text(st.characters(codec="utf-8")), max_size=20)),
}


def bits(value):
    """What tells values apart that are equal: their types, the sign of zero, the bits of a NaN."""
    if isinstance(value, list | tuple):
        return tuple(map(bits, value))
    return type(value), struct.pack("d", value) if isinstance(value, float) else value


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("where", ["memory", "sqlite"])
def test_a_value_comes_back_bit_for_bit(serving, remote, tmp_path, name, where):
    kind, initial, values = KINDS[name]
    server = serving(f"sqlite:///{tmp_path}/values.db?durability=fast" if where == "sqlite" else None)
    with Session("s", store=remote(server.url)) as here, Session("s", store=server.store) as beneath:
        here.register("x", kind, initial=initial)

        @settings(
            max_examples=often(100, 5_000),
            deadline=None,
            database=None,
            suppress_health_check=[HealthCheck.function_scoped_fixture],
        )
        @given(values)
        def comes_back(value):
            expected = bits(kind.check(value))
            version = here.set("x", value).version
            assert bits(here.get("x")) == bits(beneath.get("x")) == expected
            assert bits(here.snapshot()["x"]) == expected
            beneath.set("x", value)
            here.ledger.sync()
            assert (bits(here.get("x")), here.record("x").version) == (expected, version + 1)

        comes_back()
        assert bits(here.history("x")[-1].old) == bits(here.history("x")[-1].new)

"""Values for people, and secrets for nobody."""

from __future__ import annotations

import numpy as np
import pytest

from dspex.kinds import Float, Integer, ListOf, Secret, Tensor, Text

SHOWN = [
    (Float(), 0.7, "0.7"),
    (Text(), "a\n", "'a\\n'"),
    (Text(), "x" * 300, f"'{'x' * 198}…"),
    (Secret(), "sk-1", "'•••'"),
    (Secret(), 17, "'•••'"),
    (ListOf(Secret()), ("sk-1", "sk-2"), "'•••'"),
    (ListOf(Integer()), (1, 2), "(1, 2)"),
    (Tensor(), np.zeros((3, 4), dtype="float32"), "float32 array of shape (3, 4)"),
]


@pytest.mark.parametrize(("kind", "value", "shown"), SHOWN)
def test_shows_a_value_in_one_line(kind, value, shown):
    assert shown == kind.show(value)


def test_a_secret_is_marked_and_so_is_a_list_of_them():
    assert Secret().secret
    assert ListOf(ListOf(Secret())).secret
    assert not Text().secret
    assert not ListOf(Text()).secret

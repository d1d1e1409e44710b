"""Arrays: what they become, that they stay so, and life without NumPy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from dspex.errors import InvalidValue
from dspex.kinds import Embedding, Tensor

DTYPES = [
    (Embedding(), [1, 2], "float64"),
    (Embedding(), np.array([1], dtype="int8"), "float64"),
    (Embedding(), np.array([1], dtype="float16"), "float16"),
    (Embedding(), np.array([1], dtype=">f4"), "float32"),
    (Tensor(), [[1, 2]], "int64"),
    (Tensor(), [True], "bool"),
    (Tensor(), 3.0, "float64"),
    (Tensor(), np.array([1j], dtype="complex64"), "complex64"),
    (Tensor(dtype="float32"), [[1, 2]], "float32"),
    (Tensor(dtype="float32"), [float("inf"), float("nan")], "float32"),
    (Tensor(dtype="uint8"), [0, 255], "uint8"),
    (Tensor(dtype="complex64"), [1, 1j], "complex64"),
    (Tensor(dtype="int8"), [True], "int8"),
    (Tensor(dtype="float64"), np.zeros(2, dtype="float32"), "float64"),
    (Tensor(dtype="int64"), np.zeros(2, dtype="uint8"), "int64"),
]


@pytest.mark.parametrize(("kind", "value", "dtype"), DTYPES)
def test_an_array_is_stored_with_its_numbers_and_a_dtype(kind, value, dtype):
    stored = kind.check(value)
    assert np.dtype(dtype).newbyteorder("<") == stored.dtype
    np.testing.assert_array_equal(np.asarray(value), stored)


def test_a_dump_is_dtype_shape_and_little_endian_bytes():
    stored = Tensor().check(np.array([[1], [258]], dtype=">i2"))
    assert Tensor().dump(stored) == {"dtype": "int16", "shape": [2, 1], "data": b"\1\0\2\1"}


@pytest.mark.parametrize("array", [np.arange(6.0).reshape(2, 3).T, np.arange(9.0)[::-2], np.zeros((0, 3))])
def test_the_order_in_memory_does_not_matter(array):
    stored = Tensor().check(array)
    np.testing.assert_array_equal(array, Tensor().load(Tensor().dump(stored)))


def test_a_stored_array_never_changes():
    given = np.zeros(3)
    stored = Embedding().check(given)
    given[0] = 1.0
    assert stored[0] == 0.0
    with pytest.raises(ValueError, match="read-only"):
        stored[0] = 2.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        stored.setflags(write=True)


def test_an_object_that_fails_to_become_an_array_is_refused():
    class Failing:
        def __array__(self, *_, **__):
            raise RuntimeError

    with pytest.raises(InvalidValue, match=r"^value must be an array of numbers"):
        Tensor().check(Failing())


GOOD = {"dtype": "float32", "shape": [2], "data": b"\0" * 8}
HOSTILE = [
    (None, "a mapping of dtype, shape and data (got None)."),
    ([1.0], "a mapping of dtype, shape and data (got [1.0])."),
    ({"dtype": "float32"}, "a mapping of dtype, shape and data (got {'dtype': 'float32'})."),
    (GOOD | {"dtype": "object"}, "an array of a numeric dtype (got 'object')."),
    (GOOD | {"dtype": []}, "an array of a numeric dtype (got [])."),
    (GOOD | {"dtype": ">f4"}, "an array of a numeric dtype (got '>f4')."),
    (GOOD | {"shape": 2}, "an array with at most 32 dimensions from 0 (got 2)."),
    (GOOD | {"shape": [-2]}, "an array with at most 32 dimensions from 0 (got [-2])."),
    (GOOD | {"shape": [2.0]}, "an array with at most 32 dimensions from 0 (got [2.0])."),
    (GOOD | {"shape": [True]}, "an array with at most 32 dimensions from 0 (got [True])."),
    (GOOD | {"shape": [2] + [1] * 32}, f"an array with at most 32 dimensions from 0 (got [2{', 1' * 32}])."),
    (GOOD | {"shape": [3]}, f"12 bytes of data (got {bytes(8)!r})."),
    (GOOD | {"data": "text"}, "8 bytes of data (got 'text')."),
    (
        GOOD | {"shape": [0, 2**40, 2**40], "data": b""},
        "an array that fits into memory (got [0, 1099511627776, 1099511627776]).",
    ),
    ({"dtype": "bool", "shape": [1], "data": b"\2"}, "booleans of one byte, 0 or 1 (got b'\\x02')."),
]


@pytest.mark.parametrize(("plain", "sentence"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_arrays_are_refused_with_a_sentence(plain, sentence):
    with pytest.raises(InvalidValue) as refused:
        Tensor().load(plain)
    assert f"value must be {sentence}" == str(refused.value)


def test_what_is_loaded_is_checked():
    plain = Tensor().dump(Tensor().check([1.0, np.nan]))
    with pytest.raises(InvalidValue, match="NaN"):
        Embedding().load(plain)


WITHOUT_NUMPY = """
import sys
sys.modules["numpy"] = None
from dspex import kinds
from dspex.errors import MissingExtra
for make in (kinds.Embedding, kinds.Tensor, lambda: kinds.as_kind("tensor")):
    try:
        make()
    except MissingExtra as error:
        said = "Array kinds need the extra 'arrays': pip install 'dspex[arrays]', or '.[arrays]' in a clone."
        assert said == str(error), error
    else:
        raise AssertionError
assert (0.5,) == kinds.ListOf(kinds.Float()).check([0.5])
print("well")
"""

LAZY = """
import sys
import dspex.kinds
dspex.kinds.Float().check(0.5)
assert "numpy" not in sys.modules
dspex.kinds.Tensor()
assert "numpy" in sys.modules
print("well")
"""


@pytest.mark.parametrize("script", [WITHOUT_NUMPY, LAZY])
def test_numpy_is_needed_for_arrays_only(script):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("well\n", "")

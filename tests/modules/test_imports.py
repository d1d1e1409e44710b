"""What is imported when, and what is said without dspy."""

from __future__ import annotations

import ast
from pathlib import Path

import dspex.modules

FOLDER = Path(dspex.modules.__file__).parent


def test_importing_the_modules_imports_neither_dspy_nor_asyncio(script):
    said = script(
        "import sys\n"
        "import dspex, dspex.modules\n"
        "from dspex.modules import Predict, wrap\n"
        "print(sorted({'dspy', 'asyncio', 'dspex.lm', 'litellm'} & set(sys.modules)))\n"
    )
    assert said == "[]\n"


def test_two_files_import_dspy():
    importing = []
    for file in sorted(FOLDER.glob("*.py")):
        names = set()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add((node.module or "").split(".")[0])
        if "dspy" in names:
            importing.append(file.name)
    assert sorted(importing) == ["dspy_bridge.py", "dspy_streams.py"]


def test_without_dspy_modules_say_which_extra_is_missing(script, counted):
    said = script(
        "import sys\n"
        "sys.modules['dspy'] = None\n"
        "import dspex\n"
        "from dspex.modules import FunctionModule, Predict, execute, wrap\n"
        "for make in (lambda: Predict('question -> answer'), lambda: wrap(object())):\n"
        "    try:\n"
        "        make()\n"
        "    except dspex.MissingExtra as error:\n"
        "        print(error)\n"
        "print(FunctionModule(lambda x: x + 1)(x=1))\n"
    )
    missing = "DSPy modules need the extra 'dspy': pip install 'dspex[dspy]', or '.[dspy]' in a clone.\n"
    assert said == missing * 2 + "2\n"


def test_all_is_sorted_and_there():
    assert sorted(dspex.modules.__all__) == dspex.modules.__all__
    assert [name for name in dspex.modules.__all__ if not hasattr(dspex.modules, name)] == []

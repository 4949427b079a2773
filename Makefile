# Needs python3.11, make and git; everything else is installed into .venv from constraints.txt.
PYTHON ?= python3.11
BIN := .venv/bin
# libgomp reads this when torch is loaded: a waiting thread must not spin while another process needs the core.
export OMP_WAIT_POLICY := PASSIVE
export DVC_NO_ANALYTICS := 1
# Two cores, two processes: tests/conftest.py says which tests stay together.
PYTEST := $(BIN)/pytest --numprocesses=auto --dist=loadscope --no-loadscope-reorder
ifdef PIP_FIND_LINKS
export UV_FIND_LINKS := $(PIP_FIND_LINKS)
endif

.PHONY: setup run test test-fast check bench-quick deps clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	touch $@

run: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro

test: setup
	$(PYTEST)

test-fast: setup
	$(PYTEST) -m "not slow and not ray and not e2e and not gpu"

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -m "not gpu"

bench-quick: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m benchmarks.pipeline --quick

# Rewrites the lists of source files in dvc.yaml from the stages' imports.
deps: setup
	$(BIN)/python -m pipeline.dvcfile --write

clean:
	rm -rf out metrics plots report .layerwise

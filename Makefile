# Two commands for users: `make demo` and `make test`. Both set up .venv first.
# For developers: `make check` (lint, types, tests), `make bench`, `make clean`.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slurm check bench clean

# torch first and pinned: any other spelling pulls gigabytes of CUDA packages.
.venv/.demo: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[train,report,parquet]'
	touch $@

.venv/.dev: .venv/.demo
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[train,dev]'
	touch $@

demo: .venv/.demo
	$(BIN)/mixlaw demo demo-study

test: .venv/.dev
	$(BIN)/python -m pytest

# On a Slurm of one node that it sets up itself: needs root, apt and some eight minutes.
test-slurm: .venv/.dev
	$(BIN)/python -m pytest tests/slurm/check_slurm.py -v --no-header

check: test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv demo-study .pytest_cache .ruff_cache .hypothesis

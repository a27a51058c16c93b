# Two commands for users: `make demo` and `make test`. Both set up .venv first.
# For developers: `make check` (lint, types, tests), `make test-interop` (files made for and by the
# real libraries of others), `make browser` (Debian's Chromium, which the tests of the page use),
# `make docs` (the site), `make bench`, `make clean`.

PYTHON ?= python3
BIN := .venv/bin
INTEROP := .venv-interop
PIP := pip install --quiet --disable-pip-version-check

.PHONY: demo test test-interop test-slurm browser docs check bench clean

# torch first and pinned: any other spelling pulls gigabytes of CUDA packages.
.venv/.demo: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/$(PIP) torch==2.13.0
	$(BIN)/$(PIP) -e '.[train,report,parquet]'
	touch $@

.venv/.dev: .venv/.demo
	$(BIN)/$(PIP) -e '.[train,dev]'
	touch $@

demo: .venv/.demo
	$(BIN)/mixlaw demo demo-study

test: .venv/.dev
	$(BIN)/python -m pytest

# In an environment of its own: the libraries of others pin what ours should not be bound to, and
# what would drag CUDA in comes without its dependencies.
REAL := tests/interop/real
$(INTEROP)/.made: pyproject.toml $(REAL)/requirements.txt $(REAL)/requirements-no-deps.txt
	$(PYTHON) -m venv $(INTEROP)
	$(INTEROP)/bin/$(PIP) torch==2.13.0
	$(INTEROP)/bin/$(PIP) -r $(REAL)/requirements.txt \
		-e '.[train,parquet,tensorboard,wandb,mlflow]'
	$(INTEROP)/bin/$(PIP) --no-deps -r $(REAL)/requirements-no-deps.txt
	touch $@

test-interop: $(INTEROP)/.made
	$(INTEROP)/bin/python -m pytest -o python_files='check_*.py' -W default $(REAL)

# On a Slurm of one node that it sets up itself: needs root, apt and some eight minutes.
test-slurm: .venv/.dev
	$(BIN)/python -m pytest tests/slurm/check_slurm.py -v --no-header

# As root, on Debian and its kin. Without a Chromium the tests that need one are skipped.
browser:
	command -v chromium > /dev/null || \
		{ apt-get update --quiet && apt-get install --quiet --yes chromium; }

docs: .venv/.dev
	$(BIN)/mkdocs build --strict --site-dir site

check: test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: .venv/.dev
	$(BIN)/$(PIP) -e '.[bench]'
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv $(INTEROP) demo-study site .pytest_cache .ruff_cache .hypothesis

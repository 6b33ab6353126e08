# Two commands for a newcomer: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
WORKERS ?= 2
ARGS ?=

.PHONY: demo test test-all test-distributed check coverage clean

demo: .venv/.installed
	$(BIN)/coterie demo $(ARGS)

TEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

test: check
	$(TEST) $(ARGS)

# Every combination, where `test` covers each pair; random cases are drawn anew.
test-all: check
	$(TEST) -m "" --seed $(shell date +%s) $(ARGS)

# Several processes in full: every layout and plan; then the table of losses against one process.
test-distributed: .venv/.installed-dev
	$(BIN)/python -m pytest tests/parallel tests/train -m distributed $(ARGS)
	$(BIN)/python benchmarks/invariance.py

# Which lines no test runs; tracing them costs a good part of the time.
coverage: .venv/.installed-dev
	$(TEST) --cov --cov-report=term:skip-covered $(ARGS)

check: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python scripts/check_house.py
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python scripts/mutate.py --check
	$(BIN)/pyright

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Coterie needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing Coterie into .venv (once; PyTorch is the large part) ..."
	$(PIP) -e '.[fast,watch,web]'
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing Coterie and its checks into .venv (once) ..."
	$(PIP) -e '.[test,check]'
	@touch $@ .venv/.installed

clean:
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage build dist

# Every target works from a fresh clone; `setup` is quick when nothing changed.
# constraints.txt was resolved for Python 3.11; another one is taken only when it is named:
#     make setup PYTHON=/path/to/python3.12
PYTHON ?= python3.11
EXTRAS := controller,node,diagnose,train,demo,postgres,dev
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.holdfast-stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: setup demo test check format bench fuzz soak test-fleet clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

# Building happens in the environment itself, so that setuptools is the pinned one as well.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "make setup: needs Python 3.11; '$(PYTHON) --version' says: $$($(PYTHON) --version 2>&1 | head -n 1)." >&2; \
	  echo "Install python3.11, or name one: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "make setup: '$(PYTHON)' cannot make environments; install its venv package" >&2; \
	  echo "(Debian and Ubuntu: python3.11-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools
	$(PIP) --no-build-isolation --editable ".[$(EXTRAS)]"
	@touch $@

demo: setup
	$(BIN)/holdfast demo

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 4

# Needs root: real file systems that fill up, control groups that freeze.
test-fleet: setup
	$(BIN)/python -m pytest -m root --override-ini=testpaths=tests/fleet

# Slow: no healthy generation is ever ended, twenty times over.
soak: setup
	$(BIN)/python -m pytest -m soak --override-ini=testpaths=tests/soak --timeout=3600

# A million inputs for each parser of what nodes and programs say.
fuzz: setup
	$(BIN)/python -m tests.fuzz.parsers 1000000

# Measured comparisons; prints a table.
bench: setup
	$(BIN)/python -m bench

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

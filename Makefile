# Every target works from a fresh clone; `setup` is quick when nothing changed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.holdfast-stamp

.PHONY: setup demo test check format bench soak test-fleet clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "holdfast needs $(PYTHON); set PYTHON=..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install -q -c constraints.txt -e ".[controller,node,train,demo,postgres,dev]"
	@touch $@

demo: setup
	$(BIN)/holdfast demo

test: setup
	$(BIN)/python -m pytest

# Needs root: real file systems that fill up, control groups that freeze.
test-fleet: setup
	$(BIN)/python -m pytest -m root --override-ini=testpaths=tests/fleet

# Slow: no healthy generation is ever ended, twenty times over.
soak: setup
	$(BIN)/python -m pytest -m soak --override-ini=testpaths=tests/soak --timeout=3600

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
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache

# Every target works from a fresh clone; `setup` is quick when nothing changed.
# constraints.txt was resolved for Python 3.11; another one is taken only when it is named:
#     make setup PYTHON=/path/to/python3.12
PYTHON ?= python3.11
EXTRAS := controller,node,diagnose,train,demo,postgres,s3,dev
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.holdfast-stamp
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: setup demo test check format bench bench-model bench-recovery bench-ssh fuzz soak simulate-soak mutants test-fleet soak-fleet clean
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

# Needs root: a rack of real sshd in namespaces, Slurm, Ceph, PostgreSQL, file systems that fill up.
# The network, the processes and the mounts of it are of its own; nothing outlives it.
OWN := unshare --net --mount --pid --fork --kill-child --mount-proc sh -c '"$$@"; exit $$?' fleet
test-fleet: setup
	tools/install_fleet
	$(OWN) $(BIN)/python -m pytest -m "root and not soak" --override-ini=testpaths=tests/fleet

# The same rack, for longer: run by hand.
soak-fleet: setup
	tools/install_fleet
	$(OWN) $(BIN)/python -m pytest -s -m "root and soak" --override-ini=testpaths=tests/fleet --timeout=7200

# Slow: no healthy generation is ever ended, twenty times over; two hundred random kill schedules; a
# sharded copy of the model over 2, then 4, then 3 ranks.
soak: setup
	$(BIN)/python -m pytest -m soak --override-ini="testpaths=tests/soak tests/runtime tests/model" --timeout=3600

# Ten thousand simulated schedules of faults, and a controller killed at every write of an incident.
simulate-soak: setup
	$(BIN)/python -m tests.simulation.soak --schedules 10000
	$(BIN)/python -m pytest -m soak --override-ini=testpaths=tests/simulation -n 2

# The deciding code broken on purpose, one change at a time: who notices? (docs/mutants.md)
mutants: setup
	$(BIN)/python -m tests.mutants named
	$(BIN)/python -m tests.mutants sample --count 120

# A million inputs for each parser of what nodes and programs say.
fuzz: setup
	$(BIN)/python -m tests.fuzz.parsers 1000000

# Measured comparisons; prints a table.
bench: setup
	$(BIN)/python -m bench

# A killed rank, with Holdfast and with its peers, in the same rounds. Peers are installed here alone,
# each in an environment of its own that borrows torch from ours.
PEERS := .bench
NVRX := psutil pyyaml defusedxml packaging nvidia-ml-py pynvml setproctitle
bench-recovery: setup
	$(PYTHON) -m venv $(PEERS)/nvrx
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > $$($(PEERS)/nvrx/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth
	$(PEERS)/nvrx/bin/python -m pip install --quiet --no-deps nvidia-resiliency-ext==0.4.1 $(NVRX)
	BENCH_NVRX_PYTHON=$(PEERS)/nvrx/bin/python $(BIN)/python -m bench.recovery \
	  --systems holdfast,torchrun,nvrx --rounds 5

# A health sweep over many real sshd, with our transport and with others' clients; needs root.
SWEEPERS := asyncssh==2.24.1 parallel-ssh==2.16.0.post1 ClusterShell==1.10.1 ansible-core==2.19.14
bench-ssh: setup
	tools/install_fleet
	$(PYTHON) -m venv $(PEERS)/ssh
	$(PEERS)/ssh/bin/python -m pip install --quiet $(SWEEPERS)
	$(OWN) $(BIN)/python -m bench.sweep --hosts 64,128 --rounds 5 --peers $(PEERS)/ssh/bin

# Training speed of `tiny` beside Hugging Face's T5; only this target installs transformers.
bench-model: setup
	$(PIP) transformers==5.24.0
	$(BIN)/python -m bench.model

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) $(PEERS) .fleet build *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis

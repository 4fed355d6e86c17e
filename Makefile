# make train                         installs what is missing, then trains TM20Full with SAC on the simulator
# make train ARGS="task=TM20Lidar"   the same with your arguments
# make test                          installs what is missing, then lint, types, spelling and tests
# make test-faults                   kills processes, breaks networks, fills disks, and counts stored and lost samples
# make bench                         the project's table: ratios to the peers, with spread and bar; ARGS="--only lidar"
# make bench-gpu                     the updates on a GPU; PYTHON_GPU=python3 where torch and numpy are all that is there
# make bench-check                   compares the newest ratios with benchmarks/baseline.json; ARGS=--store stores them
# make bench-parts                   the other benchmarks of one part each (benchmarks/README.md)
# make lint | type | spell | pytest | format | pictures | clean
# PROCESSES=1 runs the tests in one process instead of four, FAULT_PROCESSES=1 those of faults instead of two.
# PYTHON=python3.12 chooses the interpreter for .venv.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
PROCESSES ?= 4
FAULT_PROCESSES ?= 2

BIN := $(VENV)/bin
PYTHON_GPU ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))
INSTALLED := $(VENV)/.installed
INSTALLED_DEV := $(VENV)/.installed-dev

# Hydra refuses a key that is given twice, so ARGS replaces a default with the same key.
# A task without a train file takes its own default; a checkpoint brings its configuration along.
CHECKPOINT_WORDS := --play --play=% --checkpoint --checkpoint=% checkpoint=%
DEFAULT_TASK := $(if $(filter task=% $(CHECKPOINT_WORDS),$(ARGS)),,task=TM20Full)
DEFAULT_TRAIN := $(if $(filter task=% train=% $(CHECKPOINT_WORDS),$(ARGS)),,train=TM20FullSAC)

.PHONY: train test test-faults lint type spell pytest format bench bench-gpu bench-check bench-parts pictures clean

train: $(INSTALLED)
	$(BIN)/python train.py $(strip $(DEFAULT_TASK) $(DEFAULT_TRAIN) $(ARGS))

test: lint type spell pytest

lint: $(INSTALLED_DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(INSTALLED_DEV)
	$(BIN)/mypy

spell: $(INSTALLED_DEV)
	$(BIN)/codespell

pytest: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -q -n $(PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

test-faults: $(INSTALLED_DEV)
	$(BIN)/python -m pytest -q -rs -m faults -n $(FAULT_PROCESSES) --dist worksteal tests/faults $(ARGS)

format: $(INSTALLED_DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED_DEV)
	$(BIN)/python -m benchmarks.rows $(ARGS)

bench-gpu:
	$(PYTHON_GPU) -m benchmarks.rows --gpu $(ARGS)

bench-check:
	$(PYTHON_GPU) -m benchmarks.rows.check $(ARGS)

bench-parts: $(INSTALLED_DEV)
	for script in benchmarks/*.py; do \
		echo "== $$script"; $(BIN)/python -m benchmarks.$$(basename $$script .py) || exit 1; done

pictures: $(INSTALLED)
	$(BIN)/python docs/make_pictures.py runs/zoo/TM20Lidar/policy.pth

# Build products and caches; .venv and runs/ stay.
clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "error: $(PYTHON) was not found; install Python 3.11 or newer, or name it: make PYTHON=..."; exit 1; }
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "error: Python 3.11 or newer is needed, $$($(PYTHON) -V) was found; name another: make PYTHON=..."; exit 1; }
	@$(PYTHON) -c "import venv, ensurepip" 2>/dev/null || \
		{ echo "error: python3-venv is missing; on Debian and Ubuntu: sudo apt install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: no virtual environment could be made in $(VENV)"; exit 1; }

$(INSTALLED): setup.py | $(BIN)/python
	$(call install,-e .)
	@touch $@

$(INSTALLED_DEV): setup.py | $(BIN)/python
	$(call install,-e ".[dev]")
	@touch $@ $(INSTALLED)

define install
$(BIN)/python -m pip install $(1) || { \
		echo "error: the installation failed, see above; it needs network, about 4 GB of disk, and a C compiler only" \
		"where a package has no wheel for this Python"; exit 1; }
endef

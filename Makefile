# make reproduce            data -> meta-training -> report (PROFILE=quick by default)
# make test                 lint and tests, including the whole smoke workflow
# make test-fast            two minutes of tests: no workflow, kernels, pages or whole trainings
# make test-cluster         the workflow on a one-node Slurm that it starts and stops (docs/cluster.md)
# make gpu-check            does this machine's GPU give the same numbers, and how fast is it? (docs/gpu.md)
PROFILE ?= quick
CORES ?= $(shell nproc)
BIN := .venv/bin
# Processes side by side, which threads of each would only slow down.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest
SPREAD := -n 2 --dist loadfile --no-loadscope-reorder
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

.PHONY: reproduce report test test-fast test-cluster gpu-check lint format docs benchmark lock clean

reproduce: .venv/ready
	$(BIN)/snakemake --cores $(CORES) --config profile="$(PROFILE)" --keep-going -- reproduce all
	@$(BIN)/python -m lft summary --profile "$(PROFILE)"

report: .venv/ready
	$(BIN)/snakemake --cores 1 --config profile="$(PROFILE)" -- report

test: .venv/dev lint
	$(PYTEST) $(SPREAD)

test-fast: .venv/dev
	$(PYTEST) $(SPREAD) -m "not (workflow or kernels or docs or slow)"

test-cluster: .venv/dev
	$(PYTEST) tests/cluster --override-ini "addopts=-q"

# Where there is no network: make gpu-check PYTHON=python3 WHEELS=<folder> OUT=<folder>
gpu-check: PYTHON ?= $(if $(wildcard .venv/ready),$(BIN)/python,python3)
gpu-check:
	$(PYTHON) tests/gpu/check.py $(if $(WHEELS),--wheels $(WHEELS)) $(if $(OUT),--out $(OUT))

lint: .venv/dev
	PATH="$(CURDIR)/$(BIN):$$PATH" pre-commit run --all-files

format: .venv/dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

docs: .venv/dev
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "Documentation: build/docs/index.html"

benchmark: .venv/dev
	$(BIN)/python tests/benchmarks/kept.py $(ARGS)
	$(BIN)/python tests/benchmarks/growth.py docs/images

# What the workflow needs; `make test` adds the rest.
.venv/ready: requirements-workflow.lock pyproject.toml
	python3 -m venv .venv
	$(PIP) -r requirements-workflow.lock
	$(PIP) --no-deps --editable .
	$(BIN)/python -c "import logging; from lft.kernels import build; logging.basicConfig(level='INFO'); print('kernels:', build.used('auto', 'cpu'))"
	touch $@

.venv/dev: .venv/ready requirements.lock
	$(PIP) -r requirements.lock
	touch $@

# Both lock files, from what is installed: after a change of pyproject.toml's dependencies.
lock: .venv/dev
	$(PIP) --upgrade --editable ".[dev]"
	$(BIN)/python workflow/envs/lock.py

clean:
	rm -rf results/smoke results/quick .snakemake

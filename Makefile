# make reproduce            data -> meta-training -> report (PROFILE=quick by default)
# make test                 lint and tests, including the whole smoke workflow
# make test-cluster         the workflow on a one-node Slurm that it starts and stops (docs/cluster.md)
# make gpu-check            does this machine's GPU give the same numbers, and how fast is it? (docs/gpu.md)
PROFILE ?= quick
CORES ?= $(shell nproc)
BIN := .venv/bin

.PHONY: reproduce report test test-cluster gpu-check lint format docs benchmark clean

reproduce: .venv/ready
	$(BIN)/snakemake --cores $(CORES) --config profile=$(PROFILE) --keep-going -- reproduce all
	@echo "Report: results/$(notdir $(basename $(PROFILE)))/report.html"

report: .venv/ready
	$(BIN)/snakemake --cores 1 --config profile=$(PROFILE) -- report

test: .venv/ready lint
	$(BIN)/pytest

test-cluster: .venv/ready
	$(BIN)/pytest tests/cluster --override-ini "addopts=-q"

# Where there is no network: make gpu-check PYTHON=python3 WHEELS=<folder> OUT=<folder>
gpu-check: PYTHON ?= $(if $(wildcard .venv/ready),$(BIN)/python,python3)
gpu-check:
	$(PYTHON) tests/gpu/check.py $(if $(WHEELS),--wheels $(WHEELS)) $(if $(OUT),--out $(OUT))

lint: .venv/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" pre-commit run --all-files

format: .venv/ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile workflow

docs: .venv/ready
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "Documentation: build/docs/index.html"

benchmark: .venv/ready
	$(BIN)/pytest tests/benchmarks --override-ini "addopts=-q" --benchmark-only
	$(BIN)/python tests/benchmarks/growth.py docs/images

.venv/ready: requirements.lock pyproject.toml
	python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(BIN)/python -c "import logging; from lft.kernels import build; logging.basicConfig(level='INFO'); print('kernels:', build.used('auto', 'cpu'))"
	touch $@

clean:
	rm -rf results/smoke results/quick .snakemake

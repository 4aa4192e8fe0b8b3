# make reproduce            data -> meta-training -> report (PROFILE=quick by default)
# make test                 lint and tests, including the whole smoke workflow
# make test-cluster         the workflow on a one-node Slurm that it starts and stops (docs/cluster.md)
PROFILE ?= quick
CORES ?= $(shell nproc)
BIN := .venv/bin

.PHONY: reproduce report test test-cluster lint format docs benchmark clean

reproduce: .venv/ready
	$(BIN)/snakemake --cores $(CORES) --config profile=$(PROFILE) --keep-going -- reproduce all
	@echo "Report: results/$(notdir $(basename $(PROFILE)))/report.html"

report: .venv/ready
	$(BIN)/snakemake --cores 1 --config profile=$(PROFILE) -- report

test: .venv/ready lint
	$(BIN)/pytest

test-cluster: .venv/ready
	$(BIN)/pytest tests/cluster --override-ini "addopts=-q"

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
	$(BIN)/python tests/benchmarks/kept.py $(ARGS)
	$(BIN)/python tests/benchmarks/growth.py docs/images

.venv/ready: requirements.lock pyproject.toml
	python3 -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	$(BIN)/python -c "import logging; from lft.kernels import build; logging.basicConfig(level='INFO'); print('kernels:', build.used('auto', 'cpu'))"
	touch $@

clean:
	rm -rf results/smoke results/quick .snakemake

# Everything runs in .venv, which the first target that needs it creates.
PYTHON  ?= $(shell command -v python3.11 || command -v python3)
PROFILE ?= demo
VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed

# Minutes are for two cores and start after installation.
COST_demo  := 15 minutes, no download, 20 MB of disk, embedded stand-in data
COST_quick := 25 minutes, 130 MB of download, 500 MB of disk
COST_paper := about a day, 130 MB of download, 500 MB of disk

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export PYTHONHASHSEED := 0

.DEFAULT_GOAL := help
.PHONY: help setup repro test lint lab bench clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP)  ## create .venv from exact pins (3 min, 2 GB of disk)

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	  echo "Python 3.11 is needed, $$($(PYTHON) --version 2>&1) was found: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "Creating .venv from requirements.txt: about 3 minutes and 2 GB of disk, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

repro: $(STAMP)  ## run every notebook: PROFILE=demo (15 min) | quick (25 min) | paper (a day)
	@python -m lib.pipeline.params
	@echo "Profile $(PROFILE), from nothing: $(or $(COST_$(PROFILE)),unknown: use demo, quick or paper)."
	dvc repro --glob '*@$(PROFILE)'

test: $(STAMP) lint  ## lint, demo pipeline, unit tests with coverage, nbval on the demo (35 min)
	dvc repro --quiet --glob '*@demo'
	python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=90

lint: $(STAMP)  ## ruff, layer contracts, stripped notebooks (10 s)
	ruff check .
	ruff format --check .
	lint-imports
	nbstripout --verify $$(git ls-files 'notebooks/*.ipynb')

lab: $(STAMP)  ## open the notebooks in JupyterLab
	jupyter lab notebooks

bench: $(STAMP)  ## solvers beside generic formulations, writes results/bench.json (20 min)
	python -m bench

clean:  ## remove the environment, data, caches and demo/quick results (paper results stay)
	rm -rf $(VENV) .cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis data/raw data/real data/standin
	git clean -qfdX results

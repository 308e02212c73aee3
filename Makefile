# Everything runs in .venv, which the first target that needs it creates.
# The first that runs and is of a version that the pins are for: first the one of the results in git.
PYTHONS  := 3.11, 3.12 or 3.13
SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON   ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
  $$python -c '$(SUITABLE)' 2>/dev/null && echo $$python && exit; done; command -v python3)
PROFILES := demo quick paper
PROFILE  ?= demo
VENV     := .venv
BIN      := $(VENV)/bin
STAMP    := $(VENV)/.installed

ifneq ($(words $(PROFILE))$(filter-out $(PROFILES),$(PROFILE)),1)
$(error There is no profile "$(PROFILE)": use one of $(PROFILES))
endif

# Minutes are for two cores and start after installation.
COST_demo  := 8 minutes, no download, 20 MB of disk, embedded stand-in data
COST_quick := 40 minutes, 300 MB of download, 500 MB of disk
COST_paper := about a day, 300 MB of download, 500 MB of disk

# What `make verify` compares unless told otherwise: the profile that claims are judged by.
VERIFIED := $(if $(filter file,$(origin PROFILE)),paper,$(PROFILE))
SAMPLE   ?= 5
SEED     ?= 0

# Processes that run tests, or notebooks of the demo, each of which uses one core.
JOBS     ?= 2

# What is left of a number without its digits and spaces is nothing.
digits   := 0 1 2 3 4 5 6 7 8 9
without   = $(if $(1),$(call without,$(wordlist 2,10,$(1)),$(subst $(firstword $(1)),,$(2))),$(2))
whole     = $(if $(filter 1,$(words $(1))),$(if $(call without,$(digits),$(1)),,yes))
$(foreach name,JOBS SAMPLE SEED,$(if $(call whole,$($(name))),,$(error \
  $(name)="$($(name))" must be a whole number, such as $(name)=2)))
$(foreach name,JOBS SAMPLE,$(if $(subst 0,,$($(name))),,$(error \
  $(name)="$($(name))" must be 1 or more)))

# Papers do not wait for one another, longest first. What is common to them comes before, what sums
# them up, and any other notebook, after.
PAPERS   := carnerero2023 koh2021 zhao2018 wang2021
define DEMO
  dvc repro --quiet --glob 'data@standin-*'
  @printf '%s\n' $(PAPERS) | \
    xargs -P $(JOBS) -I{} dvc --wait-for-lock repro $(1) --single-item --glob '{}-*@demo'
  dvc repro $(1) --glob '*@demo'
endef

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export PYTHONHASHSEED := 0

.DEFAULT_GOAL := help
.PHONY: help setup repro check test lint verify lab site bench gpu fuzz audit clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

setup: $(STAMP)  ## create .venv from exact pins (3 min, 2 GB of disk)

$(STAMP): requirements.txt pyproject.toml
	@$(if $(PYTHON),,$(error Python $(PYTHONS) is needed, none was found: install one, or say where it is by \
	  make PYTHON=/path/to/python3))
	@$(PYTHON) -c '$(SUITABLE)' 2>/dev/null || { \
	  found=$$($(PYTHON) -c 'import platform; print(platform.python_version())' 2>/dev/null || echo none); \
	  echo "Python $(PYTHONS) is needed, and $(PYTHON) is $$found: install one, or say where it is by" \
	  "make PYTHON=/path/to/python3"; exit 1; }
	@echo "Creating .venv from requirements.txt: about 3 minutes and 2 GB of disk, once."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

repro: $(STAMP)  ## run every notebook: PROFILE=demo (8 min) | quick (40 min) | paper (a day)
	@echo "Profile $(PROFILE), from nothing: $(COST_$(PROFILE))."
	@python -m replication.stages
	$(if $(filter demo,$(PROFILE)),$(call DEMO),dvc repro --glob '*@$(PROFILE)')

check: $(STAMP) lint  ## lint, layers, tests that take under a second each (3 min): for every save
	@echo "Fast tests: about 3 minutes."
	python -m pytest -q -n $(JOBS) -m "not slow"

test: $(STAMP) lint  ## lint, demo pipeline, all tests with coverage, nbval on the demo (20 to 40 min)
	@echo "Demo pipeline and all tests: 20 to 40 minutes."
	$(call DEMO,--quiet)
	python -m pytest -n $(JOBS) --cov --cov-report=term:skip-covered --cov-fail-under=90

lint: $(STAMP)  ## ruff, layer contracts, stripped notebooks (10 s)
	ruff check .
	ruff format --check .
	lint-imports
	nbstripout --verify $$(git ls-files 'notebooks/*.ipynb')

verify: $(STAMP)  ## random units from nothing, compared: SAMPLE=5 SEED=0 PROFILE=paper NOTEBOOK=
	@echo "$(SAMPLE) random units of the profile $(VERIFIED): seconds to an hour each."
	@python -m replication.verify --profile $(VERIFIED) --sample $(SAMPLE) --seed $(SEED) \
	  $(if $(NOTEBOOK),--notebook $(NOTEBOOK))

lab: $(STAMP)  ## open the notebooks in JupyterLab, with stand-in data prepared
	@python -m replication.stages
	dvc repro --quiet --glob 'data@standin-*'
	jupyter lab --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks

site: $(STAMP)  ## the site from docs/ and results/paper, without a network (1.5 min)
	python -m replication.site

bench: $(STAMP)  ## solvers beside generic formulations, writes results/bench.json (20 min)
	python -m bench

gpu: $(STAMP)  ## hypergradients, networks and wide CNNs on an NVIDIA GPU (8 min, docs/gpu.md)
	@echo "On a card as fast as an H100: 8 minutes at most; started again, it computes what is missing."
	python -m bench.gpu run

fuzz: $(STAMP)  ## random problems, knobs, files, faults; writes results/fuzz.json: SEED=0 (15 min)
	python -m fuzz --seed $(SEED)

# Options where variables are given on the command line. Neither make nor the shell reads anything
# into them, whatever the name of a file or a column.
unexport DATA LABEL CLASS NAME
given     = $(foreach name,$(1),$(if $(filter command,$(firstword $(origin $(name)))),\
  --$(name)='$(subst ','\'',$(value $(name)))'))

audit: $(STAMP)  ## how poisonable is a table: DATA=table.csv LABEL=column MINUTES=2 NAME= (2 min)
	@python -m replication.audit $(call given,DATA LABEL MINUTES NAME FEATURES CLASS)

clean:  ## remove the environment, data, caches and demo/quick results (paper results stay)
	@du -sh $(wildcard $(VENV) .cache data/raw data/real data/standin) 2>/dev/null || true
	rm -rf $(VENV) site .cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis data/raw data/real data/standin
	git clean -qfdX results

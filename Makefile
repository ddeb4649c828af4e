# Ogive's house commands; `make` alone lists them. ARGS goes on to the command that runs:
#   make demo ARGS="--quick"      make test ARGS="-k ladder"
SHELL := /bin/bash
BIN   := .venv/bin
STAMP := .venv/.ogive-setup
ARGS  ?=

# One thread per process: two test workers on two cores must not fight over them.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all bench mutants sanitize docs lint format clean

help:            ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## build .venv from nothing (PYTHON=, TORCH_INDEX= override)

KERNELS := CMakeLists.txt src/ogive/kernels/sources.py $(wildcard src/ogive/kernels/csrc/*)

$(STAMP): pyproject.toml constraints.txt $(wildcard scripts/*.sh) $(KERNELS)
	@scripts/setup.sh
	@touch $@

demo: setup      ## answer the question on real text; writes a report
	$(BIN)/ogive demo $(ARGS)

test: setup      ## the tests, large grids sampled
	$(ONE_THREAD) $(BIN)/python -m pytest -n 2 $(ARGS)

test-all: setup  ## the tests, every case of every grid
	$(ONE_THREAD) OGIVE_TEST_ALL=1 $(BIN)/python -m pytest -n 2 $(ARGS)

RACES := $(shell grep -l "^def cases" benchmarks/*.py)

bench: setup     ## every race in benchmarks/; writes benchmarks/results/ and the roofline
	@for script in $(RACES); do echo "== $$script"; $(BIN)/python "$$script" $(ARGS) || exit 1; done
	$(BIN)/python docs/draw_roofline.py

mutants: setup   ## kernels with one bug each: the tests must kill them
	$(BIN)/python tests/mutants/run.py $(ARGS)

sanitize: setup  ## the kernels under address and undefined-behaviour sanitizers
	scripts/sanitize.sh $(ARGS)

docs: setup      ## the site, into docs/_build/html; warnings are errors
	$(BIN)/python -m sphinx -W --keep-going -n -q -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

lint: setup      ## ruff, pyright, and drawings that match their scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python docs/draw_sites.py --check
	$(BIN)/python docs/draw_roofline.py --check

format: setup    ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:           ## remove what was built; keeps .venv and ogive-runs/
	rm -rf build dist docs/_build .pytest_cache .ruff_cache .hypothesis
	find src tests docs studies examples -name __pycache__ -type d -prune -exec rm -rf {} +



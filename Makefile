# `make help` lists the commands. Each one first makes .venv and installs what it needs, once.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(patsubst %,-c %,$(wildcard constraints*.txt))

.DEFAULT_GOAL := help
.PHONY: help install run test test-clusters lint ui bench

help:  ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## make .venv with every package as pinned; EXTRAS=ray,server adds Ray and what an MLflow server needs
	@$(if $(EXTRAS),$(INSTALL) -e '.[$(EXTRAS)]')

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python ≥ 3.11 is needed, $(PYTHON) is `$(PYTHON) -V 2>&1`; choose another: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv .venv
	$(INSTALL) -e '.[dev]'
	@touch $@

run: $(INSTALLED)  ## the main job: a sweep over three optimizers (on MNIST where it can be had)
	$(BIN)/python -m experiments.run -m optimizer=sgd,rmsprop,adam

test: $(INSTALLED)  ## all tests but those of clusters
	$(BIN)/python -m pytest

test-clusters: $(INSTALLED)  ## tests that start a Slurm, a Ray and a PostgreSQL server on this machine, where they are installed
	$(BIN)/python -m pytest -m 'cluster and not exhaustive'

lint: $(INSTALLED)  ## formatting, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

ui: $(INSTALLED)  ## the MLflow UI on the store of this folder
	$(BIN)/python -m experiments.ui

bench: $(INSTALLED)  ## measure the README's claims and write benchmarks/results.md
	$(BIN)/python -m benchmarks

# `make demo` and `make test` make their own environment in $(VENV) first; nothing else is needed but Python 3.11+.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.reelstream-ready

.PHONY: demo test test-slow lint clean help

help:
	@echo "make demo       train a tiny model on a sample dataset, streamed from a Hub on loopback"
	@echo "make test       lint, types, import contract, and all tests but the slow ones"
	@echo "make test-slow  the slow tests"
	@echo "make lint       lint, types and import contract only"
	@echo "make clean      delete the environment, the demo's data and its run"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/reelstream make-sample data/demo --clips 700 --seed 0 --questions motion
	$(BIN)/reelstream train configs/demo.yaml --restart
	$(BIN)/reelstream train configs/demo-parts.yaml --restart

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint
	$(BIN)/pytest -n 2

test-slow: $(READY)
	$(BIN)/pytest -m slow -n 2

clean:
	rm -rf $(VENV) data/demo data/demo_cache data/demo_parts_cache runs/demo runs/demo-parts

# On a fresh machine with Python 3.11 or later: make train, make test. Set-up happens once, by itself.
PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed
REPRODUCED := outputs/reproduce/$(shell date +%Y-%m-%d_%H-%M-%S)
.DEFAULT_GOAL := help
.PHONY: help setup train test test-thorough test-cluster bench reproduce lint format tensorboard clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(INSTALLED)  ## make .venv with everything in it

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

train: setup  ## train softmax regression from scratch for 20 epochs
	$(VENV)/bin/python -m src.train model=scratch trainer.max_epochs=20

test: setup  ## run the whole test suite
	$(VENV)/bin/python -m pytest -n auto --dist worksteal

test-thorough: setup  ## try every variant of what takes long to try: largest folders, signals, streams (5 minutes)
	$(VENV)/bin/python -m pytest -n auto --dist worksteal -m thorough

test-cluster: setup  ## test on a real Slurm and PostgreSQL, which it installs and starts (root, Debian)
	$(VENV)/bin/python -m pytest -n 0 tests/cluster/on_*.py

bench: setup  ## measure against plain loops, then check that no ratio has become much worse
	$(VENV)/bin/python -m src.benchmark
	$(VENV)/bin/python -m pytest -o faulthandler_timeout=3600 tests/tools/guard_benchmark.py

reproduce: setup  ## run every experiment of the notes, check it against its yardstick, write docs/results.md (9 minutes)
	$(VENV)/bin/python -m src.reproduce hydra.run.dir=$(REPRODUCED)
	sed -e '/^<!-- results -->$$/,/^<!-- .results -->$$/{ /^|/d; }' -e '/^<!-- results -->$$/r $(REPRODUCED)/results.md' \
		docs/results.md > $(REPRODUCED)/page.md
	mv $(REPRODUCED)/page.md docs/results.md

lint: setup  ## check style, and the types of the rooms below training
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy --follow-imports=silent src/maths src/data src/models src/runs src/files.py src/formats.py

format: setup  ## put style right
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

tensorboard: setup  ## look at the runs, http://127.0.0.1:6006
	$(VENV)/bin/tensorboard --host 127.0.0.1 --logdir outputs

clean:  ## remove .venv and caches; data and outputs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache *.egg-info
	find src tests -name __pycache__ -type d -exec rm -rf {} +

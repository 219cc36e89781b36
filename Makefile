# Everything runs in .venv, which the first call sets up. Python 3.11 or newer: make PYTHON=python3.13 test
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint setup prove bench clean

demo: setup
	$(BIN)/batchrun run jobs/sentiment.toml --sandbox --sandbox-replies sample_data/replies.toml \
		--sandbox-latency 0.2 --preview 8

test: setup
	$(BIN)/python -m pytest -n 2 -m "not slow" --cov --cov-report=term:skip-covered -q

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

prove: setup
	$(BIN)/python -m proofs.prove

setup: .venv/ready

# pip leaves out what is there already, so a change of the files below costs seconds.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv output .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

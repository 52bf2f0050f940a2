# Targets are thin: the work is done by uv, pytest and the trunkline command. A bare Python >= 3.11 is all this needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MEMBERS := $(wildcard libs/*/pyproject.toml services/*/pyproject.toml providers/*/pyproject.toml tools/*/pyproject.toml tests/*/pyproject.toml)
READY := $(VENV)/.ready
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install demo dev call test unit check faults chaos chaos-quick fix bench bench-peers bench-parts lock clean

help: ## Print this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

install: $(READY) ## Make .venv with everything, from hashes

$(READY): requirements.lock pyproject.toml $(MEMBERS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Trunkline needs Python 3.11 or newer; say which with make PYTHON=...")'
	@echo "installing into $(VENV) (once; about a minute on a slow line)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9,<1"
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --require-hashes -r requirements.lock
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps $(patsubst %/pyproject.toml,-e ./%,$(MEMBERS))
	@$(BIN)/python -m compileall -q -j 0 $(dir $(MEMBERS)) # as above: where Python may keep no bytecode, each process would compile
	@touch $@

demo: $(READY) ## A whole call, seen and heard: no keys, no network, 60 s; writes out/demo (PROVIDERS=emulated: through the SDKs)
	@$(BIN)/trunkline demo $(if $(PROVIDERS),--providers $(PROVIDERS)) $(ARGS)

dev: $(READY) ## All five services and an embedded NATS; Ctrl-C stops them
	@$(BIN)/trunkline dev $(ARGS)

call: $(READY) ## Call a running deployment as Twilio would
	@$(BIN)/trunkline call $(ARGS)

test: $(READY) check ## Everything CI runs: checks, then all tests
	@$(BIN)/python -m pytest -q -n 4 -m "not e2e" $(ARGS)
	@$(BIN)/python -m pytest -q -m e2e $(ARGS)

unit: $(READY) ## The fast tests: pure code only
	@$(BIN)/python -m pytest -q -m unit $(ARGS)

faults: $(READY) ## Every fault of every provider adapter, in whole calls (3 min); writes the table
	@TRUNKLINE_FAULTS=all TRUNKLINE_WRITE_RESULTS=1 $(BIN)/python -m pytest -q tests/e2e/test_provider_faults.py -k no_fault $(ARGS)

chaos: $(READY) ## Kill everything, again and again, while 20 calls talk (2 h); writes the table
	@$(BIN)/python -m trunkline.chaos run $(ARGS)
	@$(BIN)/python -m trunkline.chaos report

chaos-quick: $(READY) ## One kill of every part during 6 calls (2 min); nothing may be lost
	@$(BIN)/python -m pytest -q tests/chaos/test_quick.py $(ARGS)

check: $(READY) ## Lint, format, types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/mypy

fix: $(READY) ## Apply the formatter and the safe lint fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY) ## Whole calls by the hundred: what each costs and waits, and how many fit (9 min); compares and writes
	@$(BIN)/python -m trunkline.bench --churn 1000 --startup --out tools/bench/results/load.json $(ARGS)

bench-peers: $(READY) ## The same callers with Pipecat, installed from PyPI, and Trunkline (8 min); writes the tables
	@$(BIN)/python tools/bench/peers/pipecat_load.py --out tools/bench/results/pipecat_load.json $(ARGS)
	@$(BIN)/python tools/bench/peers/false_alarms.py --out tools/bench/results/false_alarms.json

bench-parts: $(READY) ## CPU per frame through each hop, the voice detector, and where a turn's time goes
	@$(BIN)/python tools/bench/frame_cost.py $(ARGS)
	@$(BIN)/python tools/bench/vad_runtime.py
	@$(BIN)/python tools/bench/turn_latency.py

lock: ## Resolve again and export requirements.lock (versions and hashes)
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet "uv>=0.9,<1"; }
	@$(BIN)/uv lock --quiet --upgrade
	@$(BIN)/uv export --quiet --all-packages --all-groups --no-emit-workspace --no-header --no-annotate --format requirements-txt > requirements.lock

clean: ## Remove the environment and what was written
	@rm -rf $(VENV) out .mypy_cache .ruff_cache .pytest_cache .hypothesis uv.lock

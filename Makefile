# Farthing's everyday commands. Needs only Python 3.11 or newer (with venv and pip) and make.
# Everything runs from .venv, which is built from the hash-pinned requirements.lock when it is missing or out of date.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# Switches a person may set: make demo FILE=x.pdf JSON=1, make test ARGS="tests/protocol -k money", make bench ONLY=engine
FILE ?=
BUDGET ?=
JSON ?=
ONLY ?=
ROWS ?=
CHECK ?=
ARGS ?=
MINUTES ?=
SEEDS ?=

.PHONY: help
help: ## Show this help
	@printf 'Farthing: find, agree, pay and settle between agents.\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

.PHONY: demo
# Through the environment, so that no character of a file's name means anything to the shell.
demo: export DEMO_FILE = $(value FILE)
demo: export DEMO_BUDGET = $(value BUDGET)
demo: $(STAMP) ## Run one whole trade and print it as a story (FILE=any.pdf, BUDGET=0.2, JSON=1)
	@$(BIN)/python -m farthing.clients.demo $(if $(FILE),--file "$$DEMO_FILE") $(if $(BUDGET),--budget "$$DEMO_BUDGET") $(if $(JSON),--json)

.PHONY: faults
faults: $(STAMP) ## Break each listed line, one at a time, and see a named test fail for each
	@$(BIN)/python -m tests.faults

.PHONY: soak
soak: $(STAMP) ## Live simulated lives, then kill real processes 200 times (MINUTES=60, SEEDS=1..1000)
	@$(BIN)/python -m tests.simulation $(if $(SEEDS),--seeds '$(SEEDS)',--minutes '$(or $(MINUTES),60)')
	@KILLS=200 $(BIN)/python -m pytest -q tests/end_to_end/test_kill_server.py

.PHONY: test
test: $(STAMP) ## Run every test, on up to four cores (ARGS= goes to pytest)
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

.PHONY: lint
lint: $(STAMP) ## Check style, formatting, types and the layers between rooms
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

.PHONY: format
format: $(STAMP) ## Rewrite the code in the house format
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: schemas
schemas: $(STAMP) ## Generate spec/farthing/spec/schemas (CHECK=1: only compare, byte for byte)
	@$(BIN)/python -m farthing.spec.generate $(if $(CHECK),--check)

.PHONY: bench
bench: $(STAMP) ## Measure beside honest baselines (ONLY=engine,door, JSON=1, ROWS=)
	@$(BIN)/python -m tests.bench $(if $(ONLY),--only '$(ONLY)') $(if $(JSON),--json) $(if $(ROWS),--rows '$(ROWS)')

.PHONY: venv
venv: $(STAMP) ## Build .venv from the lock, if it is not up to date
	@:

.PHONY: lock
lock: $(STAMP) ## Resolve requirements.lock anew from pyproject.toml
	@PYTHON='$(abspath $(BIN))/python' .ci/lock

.PHONY: clean
clean: ## Remove .venv and every cache
	@rm -rf $(VENV) dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A version manager may list a python3.x that does not start: the first one that really runs and is new enough is taken.
$(STAMP): requirements.lock pyproject.toml
	@python=; for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then echo 'Farthing needs Python 3.11 or newer with venv and pip; none was found. Name one: make venv PYTHON=/path/to/python3' >&2; exit 1; fi; \
	echo "Installing Farthing and its $$(grep -c == requirements.lock) pinned packages into $(VENV) with $$("$$python" --version)" >&2; \
	if ! "$(BIN)/python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then "$$python" -m venv --clear "$(VENV)"; fi; \
	"$(BIN)/python" -m pip install -qq --require-hashes --requirement requirements.lock; \
	"$(BIN)/python" -m pip install -qq --no-deps --no-build-isolation --editable .; \
	touch "$@"

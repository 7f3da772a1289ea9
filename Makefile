# Needs make, a POSIX shell and Python 3.11 or newer; everything else goes into ./.venv.
# ARGS passes options on:  make run ARGS="--port 9000"   make test ARGS="-k periods"

.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?=
IMAGE ?= usage-metering
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
PIP := $(PY) -m pip --quiet --disable-pip-version-check --no-input
UNIT := tests/plans tests/webhooks tests/house
# Most tests wait for a server of their own, so there are more of them than cores. The tests of a file share one.
SPREAD := -n 3 --dist loadfile --no-loadscope-reorder --max-worker-restart 0
# Some images forbid bytecode, and every process of the tests would compile every file again.
export PYTHONDONTWRITEBYTECODE :=

# The environment is good for the folder written in it, as long as its interpreter is there. A repository that
# was moved, or a Python that was replaced, makes it anew.
MADE := $(VENV)/.made-in
READY := $(VENV)/.ready
READY_DEV := $(VENV)/.ready-dev
ifneq ($(shell test -x $(PY) && cat $(MADE) 2>/dev/null),$(CURDIR))
.PHONY: $(MADE)
endif

.PHONY: help setup setup-dev run demo test test-unit test-integration soak test-cov house lint types check bench bench-keeping bench-scrape lock \
        docker-build docker-run clean

help: ## print this list (also plain `make`)
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-17s %s\n' "$$name" "$$text"; done

setup: $(READY) ## make ./.venv with the `metering` command and all it needs
	@:

setup-dev: $(READY_DEV) ## setup, and the tools of the tests and checks
	@:

run: setup ## start the service on 127.0.0.1:8005 with a durable store and a sandbox Stripe
	@exec $(BIN)/metering serve --sandbox $(ARGS)

demo: setup ## a service to look around in: organisations in every state, a month of history, a tour
	@exec $(BIN)/metering demo $(ARGS)

test: setup-dev ## every test (starts and ends its own servers)
	@$(PY) -m pytest $(SPREAD) $(ARGS)

test-unit: setup-dev ## the tests that need no server process
	@$(PY) -m pytest $(UNIT) $(ARGS)

test-integration: setup-dev ## the tests that start stores and services
	@$(PY) -m pytest tests $(UNIT:%=--ignore=%) $(SPREAD) $(ARGS)

soak: setup-dev ## every test, and wholly what `make test` draws a share of: crashes, orders, planted bugs (hours)
	@SOAK=1 $(PY) -m pytest $(SPREAD) -o faulthandler_timeout=3600 $(ARGS)

test-cov: setup-dev ## every test, with branch coverage and the lines that were missed
	@$(PY) -m coverage erase
	@$(PY) -m coverage run -m pytest $(SPREAD) $(ARGS)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report
	@echo "The law and the language (plans, webhooks) stay at 100 %:"
	@$(PY) -m coverage report --include='plans/*,webhooks/*' --fail-under=100

house: setup-dev ## the rules of the house that a machine can check
	@$(PY) -m pytest tests/house $(ARGS)

lint: setup-dev ## style, layers, Dockerfile and compose.yaml
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

types: setup-dev ## mypy, strict, over code and tests
	@$(BIN)/mypy

check: lint types house test ## lint, types, house and test: all that must hold before a change goes in

bench: setup-dev ## events per CPU-second, one by one and in batches, beside bare limits (needs wrk: apt install wrk)
	@$(PY) -m tests.bench.track $(ARGS)
	@$(PY) -m tests.bench.events $(ARGS)

bench-keeping: setup-dev ## what minutes, dimensions, raw events, windows, rates and holds cost an event
	@$(PY) -m tests.bench.keeping $(ARGS)

bench-scrape: setup-dev ## what a scrape of the metrics costs with 1,000 and a million organisations (2 GB of memory)
	@$(PY) -m tests.bench.scrape $(ARGS)

lock: setup-dev ## write both constraints files from pyproject.toml (newer versions: ARGS=--upgrade)
	@$(LOCK) --output-file constraints.txt
	@$(LOCK) --extra otel --extra sentry --group dev --constraint constraints.txt --output-file constraints-dev.txt

LOCK = $(BIN)/uv pip compile pyproject.toml --extra embedded --extra ephemeral --extra fast --group build \
	--universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --quiet $(ARGS)

docker-build: ## build the container image
	docker build --tag $(IMAGE) .

docker-run: ## run that image on 127.0.0.1:8005 with its embedded store in the volume metering-data
	docker run --rm --init --publish 127.0.0.1:8005:8005 --read-only --tmpfs /tmp --cap-drop ALL \
		--security-opt no-new-privileges --volume metering-data:/data $(IMAGE) $(ARGS)

clean: ## remove ./.venv and every cache; ./var with its data stays
	@rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis \
		.import_linter_cache .grimp_cache *.egg-info
	@find metering plans webhooks tests -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the environment ---------------------------------------------------------------------------------------

NO_PYTHON = { printf '%s\n' \
	'This needs Python 3.11 or newer, and none was found.' \
	'  Debian, Ubuntu:  sudo apt install python3 python3-venv' \
	'  macOS:           brew install python@3.11' \
	'  elsewhere:       make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; exit 1; }
NO_VENV = { printf '%s\n' \
	'This Python has no venv module with pip.' \
	'  Debian, Ubuntu:  sudo apt install python3-venv' \
	'  elsewhere:       make $(MAKECMDGOALS) PYTHON=/path/to/another/python3.11' >&2; exit 1; }
NO_INSTALL = { printf '%s\n' \
	'pip could not install the packages; its own message is above.' \
	'  Is the package index reachable? (PIP_INDEX_URL names another one, PIP_CERT a certificate.)' \
	'  Then repeat: make $(MAKECMDGOALS)' >&2; exit 1; }

$(MADE):
	@set -e; \
	if [ ! -e $(MADE) ] && $(PY) -m pip --version >/dev/null 2>&1; then \
		pwd > $(MADE); exit 0; fi; \
	for python in $(if $(PYTHON),"$(PYTHON)",python3.11 python3 python3.12 python3.13 python3.14); do \
		"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && break; \
		python=; \
	done; \
	[ -n "$$python" ] || $(NO_PYTHON); \
	"$$python" -c 'import ensurepip, venv' >/dev/null 2>&1 || $(NO_VENV); \
	echo "Making $(VENV) with $$("$$python" --version) ..."; \
	"$$python" -m venv --clear $(VENV); \
	pwd > $(MADE)

$(READY): constraints.txt pyproject.toml $(MADE)
	@echo "Installing what the service needs into $(VENV): up to a minute ..."
	@$(PIP) install --require-hashes -r constraints.txt || $(NO_INSTALL)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

# The development lock holds all of the other one (tests/house watches it), so one installation serves both.
$(READY_DEV): constraints-dev.txt constraints.txt pyproject.toml $(MADE)
	@echo "Installing the service and the tools of its tests into $(VENV): up to a minute ..."
	@$(PIP) install --require-hashes -r constraints-dev.txt || $(NO_INSTALL)
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $(READY) $@

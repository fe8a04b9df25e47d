# Two commands matter: `make demo` and `make test`. They install into .venv only, from lock files with hashes.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
WORKERS ?= 2

.PHONY: help venv demo test lint format docs bench wheel-test dist release release-test lock clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

demo: $(VENV)/.runtime  ## Cal-QL against CQL on narrow data, then the report (ARGS="--help" shows what can be changed)
	$(BIN)/calql demo $(ARGS)

test: $(VENV)/.dev  ## all tests, in parallel (WORKERS=2, ARGS="tests/cli -k doctor")
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/.dev  ## rules, formatting and types, without changing anything
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/python docs/keep.py --check

format: $(VENV)/.dev  ## fix what the linter can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python docs/keep.py

docs: $(VENV)/.dev  ## the documentation, strictly, in site/dev, or as a release (VERSION=0.1.0) beside other versions
	$(BIN)/python docs/versions.py site $(VERSION)

bench: $(VENV)/.runtime  ## update steps per second, and the share of the machine's peak
	$(BIN)/calql bench $(ARGS)

wheel-test: $(VENV)/.dev  ## build the wheel, install it elsewhere, use it from outside the source tree
	$(BIN)/python -m pytest tests/test_wheel.py

dist: $(VENV)/.dev  ## the wheel and the source distribution in dist/, built twice and checked, with their checksums
	$(BIN)/python tools/release.py dist

release: $(VENV)/.dev  ## the same, if this commit may be released: nothing uncommitted, no unreleased changes
	$(BIN)/python tools/release.py dist --release

release-test: $(VENV)/.dev  ## install the wheel with pip, without and with all extras, on every Python here (minutes)
	$(BIN)/python -m pytest tests/release_install.py -rs

venv: $(VENV)/.dev  ## the development environment, without running anything

lock:  ## resolve both lock files again (needs uv): names, versions and hashes, no addresses
	uv pip compile $(LOCK) --all-extras --group dev pyproject.toml -o requirements-dev.lock
	uv pip compile $(LOCK) --extra paper --extra report --group build -c requirements-dev.lock pyproject.toml -o requirements.lock
LOCK := --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header

clean:  ## remove the environment, caches and builds (runs and data sets stay)
	rm -rf $(VENV) .cache .hypothesis .pytest_cache .ruff_cache build dist site

$(VENV)/.dev: requirements-dev.lock $(VENV)/.runtime
	$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/pip
	@echo "installing calql and its packages into $(VENV): one to two minutes in silence, of it 250 MB to download"
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

# The first interpreter that is new enough; PYTHON=/path/to/python3 selects another one.
$(BIN)/pip:
	@for python in $(or $(PYTHON),python3.11 python3.12 python3.13 python3); do \
	  $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  $$python -c 'import ensurepip, venv' 2>/dev/null || { missing=$$python; continue; }; \
	  echo "creating $(VENV) with $$python"; \
	  exec $$python -m venv --clear $(VENV); \
	done; \
	if [ -n "$$missing" ]; then echo "error: $$missing has no venv module; on Debian: apt install python3-venv"; \
	else echo "error: Python 3.11 or newer is needed; on Debian 12: apt install python3 python3-venv"; fi >&2; \
	exit 1

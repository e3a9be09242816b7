# Everything a person or CI runs. Paths are relative and tools start as `python -m`, so that a folder
# with spaces or non-ASCII letters in its name works.

.DEFAULT_GOAL := help
.PHONY: help demo test faults soak check format bench clean constraints secrets
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# -qq: errors only; pip's warnings about unreachable index folders say nothing about the install.
PIP := PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 $(PY) -m pip install -qq -c constraints.txt
# With the environment's own, pinned build tools an install repeats exactly and needs no second environment.
INSTALL := $(PIP) hatchling editables && $(PIP) --no-build-isolation
# Tests start hundreds of processes: where the environment forbids bytecode files, each would compile all of Textmill.
export PYTHONDONTWRITEBYTECODE :=
PINS := pyproject.toml constraints.txt
TORCH := torch==2.13.0

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.worker ## install, fetch the demo models, run real jobs over examples/
	@$(PY) examples/demo.py

test: $(VENV)/.dev ## every test, with private PostgreSQL and Valkey servers
	@$(PY) -m pytest -n 3 --dist worksteal

faults: $(VENV)/.dev ## the whole fault suite (tests/faults); repeat a run with SEED=N
	@$(PY) -m pytest tests/faults -m 'not soak' -n 2 --dist worksteal $(if $(SEED),--seed $(SEED))

soak: MINUTES ?= 60
soak: $(VENV)/.dev ## every fault at random for MINUTES=60
	@$(PY) -m pytest tests/faults -m soak -s --timeout 0 --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

check: $(VENV)/.dev ## formatting, lint, types and the direction of imports
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy
	@$(PY) -c 'import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports())'

format: $(VENV)/.dev ## rewrite the code as `make check` wants it
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: $(VENV)/.dev ## all benchmarks, one after the other (about half an hour)
	@$(PY) -m benchmarks

clean: ## remove the virtual environment and everything built or cached
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

secrets: ## random passwords for docker-compose.yml, in deploy/secrets/
	@sh deploy/secrets.sh

constraints: ## renew constraints.txt from a clean resolution of everything
	rm -rf build/constraints && $(PYTHON) -m venv build/constraints
	PIP_ROOT_USER_ACTION=ignore build/constraints/bin/python -m pip install -q '$(TORCH)' '.[dev]'
	build/constraints/bin/python -m pip freeze --all | $(PYTHON) deploy/pins.py > build/constraints.txt
	mv build/constraints.txt constraints.txt && rm -rf build/constraints

$(PY):
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Textmill needs Python 3.11 or later; $(PYTHON) is {v[0]}.{v[1]}. Name another one: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/.worker: $(PINS) | $(PY)
	@echo "Installing into $(VENV) (a few minutes the first time; torch is the largest part)"
	@$(INSTALL) -e '.[worker]'
	@touch $@

$(VENV)/.dev: $(PINS) | $(PY)
	@echo "Installing into $(VENV) what the tests need (a few minutes the first time)"
	@$(INSTALL) -e '.[dev]'
	@touch $@ $(VENV)/.worker

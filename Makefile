# What there is to do here; `make help` lists it. Needs make, git and Python 3.11 or newer.

PYTHON ?= python3

# In a container that the project's Dockerfile.dev made, its virtual environment is used.
ifdef INSTALLED_IN
BIN := $(INSTALLED_IN)/bin
PROJECT_S_BIN := $(BIN)
INSTALLED := $(INSTALLED_IN)/installed-dev
else
BIN := .venv/bin
PROJECT_S_BIN := ../$(BIN)
INSTALLED := .venv/installed-dev
endif
PROJECT := {{cookiecutter.project}}

.DEFAULT_GOAL := help
.PHONY: help demo render install test lint docs bench wheels lock-wheels lock clean

help: ## List what there is to do
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 16

demo: ## Render a project into demo/, start it and show its first trace
	@$(PYTHON) demo.py

render: ## Render a project into demo/ and do no more
	@$(PYTHON) demo.py --render

install: $(INSTALLED) ## Install what the tests need

test: $(INSTALLED) ## Run every test that this machine can run
	@$(BIN)/pytest

# The project is checked as it is here, before rendering. No caches there: they would be rendered.
lint: $(INSTALLED) ## Check style, types and shell scripts, of the template and of what it renders
	@$(BIN)/ruff check --no-cache
	@$(BIN)/ruff format --no-cache --check
	@$(BIN)/mypy --strict demo.py hooks
	@cd '$(PROJECT)' && $(PROJECT_S_BIN)/mypy --cache-dir=../.mypy_cache
	@$(BIN)/shellcheck .ci/run

docs: $(INSTALLED) ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

bench: $(INSTALLED) ## Measure, each figure against a baseline in the same run, and write bench/RESULTS.md
	@$(BIN)/python bench $(ONLY)

wheels: $(INSTALLED) ## Build the packages into the project's wheels/
	@$(BIN)/python packages/wheels.py build

lock-wheels: $(INSTALLED) ## Write the hashes of those wheels into the project's requirements files
	@$(BIN)/python packages/wheels.py lock

COMPILE := pip compile --quiet --upgrade --universal --generate-hashes
lock: export UV_CUSTOM_COMPILE_COMMAND = make lock
lock: $(INSTALLED) wheels ## Resolve the dependencies of both levels again
	@rm -rf .lock && $(BIN)/cookiecutter --no-input --output-dir .lock . project=locked >/dev/null
	@cd .lock/locked && PATH="$(CURDIR)/$(BIN):$$PATH" make lock INSTALLED= \
	  && cp requirements.txt requirements-dev.txt '$(CURDIR)/$(PROJECT)/'
	@$(BIN)/uv $(COMPILE) pyproject.toml -c .lock/locked/requirements-dev.txt -o requirements.txt
	@$(BIN)/uv $(COMPILE) pyproject.toml --group dev -c .lock/locked/requirements-dev.txt -c requirements.txt -o requirements-dev.txt
	@rm -rf .lock

clean: ## Remove what can be made again
	rm -rf .venv demo site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Python compiles what it imports, which leaves out much; unless it may write no bytecode.
COMPILED := $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)

$(INSTALLED): requirements-dev.txt $(PROJECT)/requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'This needs Python 3.11 or newer. Name one: make $(MAKECMDGOALS) PYTHON=python3.14' >&2; exit 1; }
	@test -d $(@D) || $(PYTHON) -m venv $(@D)
	@$(BIN)/python -m pip install --disable-pip-version-check $(COMPILED) --require-hashes \
	  -r requirements-dev.txt -r '$(PROJECT)/requirements-dev.txt' || \
	  { echo 'The packages could not be installed: pip says above what kept it. Is there a network?' >&2; exit 1; }
	@touch $@

# `make help` lists the targets. Needs make, git and Python 3.11 or newer.

PYTHON ?= python3

# In a container from the project's Dockerfile.dev, use its virtual environment.
ifdef INSTALLED_IN
BIN := $(INSTALLED_IN)/bin
BIN_FROM_PROJECT := $(BIN)
INSTALLED := $(INSTALLED_IN)/installed-dev
else
BIN := .venv/bin
BIN_FROM_PROJECT := ../$(BIN)
INSTALLED := .venv/installed-dev
endif
PROJECT := {{cookiecutter.__folder}}

.DEFAULT_GOAL := help
.PHONY: help demo render new install test test-kubernetes lint docs bench wheels lock clean

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile | expand -t 24

demo: ## Render a project into demo/, start it and show its first trace
	@$(PYTHON) demo.py

render: ## Render a project into demo/
	@$(PYTHON) demo.py --render

new: ## Ask the template's questions and render a project next to this folder
	@$(PYTHON) demo.py --new

install: $(INSTALLED) ## Install what the tests need

test: $(INSTALLED) ## Run every test that this machine can run
	@$(BIN)/python tests/parts.py

test-kubernetes: $(INSTALLED) ## Run the tests on a Kubernetes cluster
	@KUBERNETES=1 $(BIN)/python -m pytest tests/test_kubernetes.py

# This checks the project before rendering, without caches, which would be rendered.
lint: $(INSTALLED) ## Check style, types and shell scripts of the template and its projects
	@$(BIN)/ruff check --no-cache
	@$(BIN)/ruff format --no-cache --check
	@$(BIN)/mypy --strict demo.py hooks
	@for package in traced-flask otlp-viewer; do \
	  (cd packages/$$package && ../../$(BIN)/mypy --strict --cache-dir=../../.mypy_cache/$$package src) || exit 1; done
	@cd '$(PROJECT)' && $(BIN_FROM_PROJECT)/mypy --cache-dir=../.mypy_cache
	@$(BIN)/shellcheck .ci/run

docs: $(INSTALLED) ## Build the documentation into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict >/dev/null

bench: $(INSTALLED) ## Run the benchmarks and write bench/RESULTS.md
	@$(BIN)/python bench $(ONLY)

wheels: $(INSTALLED) ## Build the packages into the project's wheels/, and lock their hashes
	@$(BIN)/python packages/wheels.py

COMPILE := pip compile --quiet --upgrade --universal --generate-hashes
lock: export UV_CUSTOM_COMPILE_COMMAND = make lock
lock: $(INSTALLED) wheels ## Resolve the dependencies of the template and of the project
	@rm -rf .lock && $(BIN)/cookiecutter --no-input --output-dir .lock . project=locked >/dev/null
	@cd .lock/locked && PATH="$(CURDIR)/$(BIN):$$PATH" make lock INSTALLED= \
	  && cp requirements.txt requirements-dev.txt '$(CURDIR)/$(PROJECT)/'
	@$(BIN)/uv $(COMPILE) pyproject.toml -c .lock/locked/requirements-dev.txt -o requirements.txt
	@$(BIN)/uv $(COMPILE) pyproject.toml --group dev -c .lock/locked/requirements-dev.txt -c requirements.txt -o requirements-dev.txt
	@rm -rf .lock

clean: ## Remove everything that can be rebuilt
	rm -rf .venv demo site .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Python compiles what it imports, so do not compile everything, unless it must not write bytecode.
COMPILED := $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)
PIP := PIP_USER=0 $(BIN)/python -m pip install --quiet --disable-pip-version-check

$(INSTALLED): requirements-dev.txt $(PROJECT)/requirements-dev.txt packages/traced-flask/pyproject.toml packages/otlp-viewer/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'This needs Python 3.11 or newer. Specify one: make $(MAKECMDGOALS) PYTHON=python3.14' >&2; exit 1; }
	@echo 'Installing the development packages into $(BIN:/bin=). This takes a minute.'
	@test -d $(@D) || $(PYTHON) -m venv $(@D)
	@$(PIP) $(COMPILED) --require-hashes -r requirements-dev.txt -r '$(PROJECT)/requirements-dev.txt' && \
	  $(PIP) --no-deps --no-build-isolation -e packages/traced-flask -e packages/otlp-viewer || \
	  { echo 'The packages could not be installed. The reason is above.' >&2; exit 1; }
	@touch $@

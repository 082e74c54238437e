# Everything runs in a virtual environment that the targets make themselves.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install browser demo test test-slow test-kills test-lowest bench-policies lint format docs wheel clean

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(VENV)/.installed  ## Make .venv with eenet and the development tools

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "eenet needs Python 3.11 or newer: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps sweeps  # W&B's schema, for a test; it asks for numpy 1
	touch $@

demo: install  ## Train, fit and draw the curve on the digits inside scikit-learn
	$(BIN)/eenet pipeline --config digits/resnet20

browser: .browser/chromium  ## Bring a headless Chromium from npm, for the tests of the report

.browser/chromium:
	npm install --silent --no-audit --no-fund --prefix .browser @sparticuz/chromium@153
	cd .browser && TMPDIR="$$PWD" node --input-type=module -e \
	  'import chromium from "@sparticuz/chromium"; await chromium.executablePath()'

test: lint  ## Linters, types and the fast tests
	$(BIN)/pytest -n 2 -m 'not slow and not kills'

test-slow: install  ## The tests that take minutes
	$(BIN)/pytest -m slow
	HYPOTHESIS_PROFILE=thorough $(BIN)/pytest -n 2 tests/fuzz

test-kills: install  ## The pipeline killed at 50 random moments
	$(BIN)/pytest -s -m kills

test-lowest:  ## The fast tests with the lowest versions of dependencies that pyproject.toml allows
	$(PYTHON) -m venv --clear .lowest
	.lowest/bin/python -m pip install --quiet uv
	.lowest/bin/uv pip install --quiet --python .lowest/bin/python --resolution lowest-direct --editable '.[dev]'
	.lowest/bin/pytest -n 2 -m 'not slow and not kills'

bench-policies: install  ## Every exit policy on frozen exit outputs; ARGS='--policies+ mine.Policy'
	$(BIN)/python benchmarks/policies.py $(ARGS)

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: install  ## Build the documentation site in site/; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel:  ## Build the wheel in dist/, and check it in an empty environment
	rm -rf dist .wheel
	$(PYTHON) -m venv .wheel
	.wheel/bin/python -m pip install --quiet build twine
	.wheel/bin/python -m build
	.wheel/bin/python -m twine check --strict dist/*
	$(PYTHON) -m venv --clear .wheel
	.wheel/bin/python -m pip install --quiet dist/*.whl
	cd dist && ../.wheel/bin/eenet recipes | grep -q digits/resnet20  # packed with it
	cd dist && ../.wheel/bin/python -c 'import eenet, pathlib; assert pathlib.Path(eenet.__file__).with_name("py.typed").is_file()'

format: install  ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## Remove the environment and caches, not the runs
	rm -rf $(VENV) .wheel .lowest site .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

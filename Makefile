# Every target sets itself up: a virtual environment in .venv, with the versions of constraints.txt,
# whose files pip checks by their hashes.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
# What pip would do on one core; some packages have files that are not for this Python.
COMPILE := $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
# Else every process that a test starts compiles the package anew.
unexport PYTHONDONTWRITEBYTECODE
# Without hashes: which of its builds is right, for a CPU or a GPU, is the machine's choice, and a GPU's
# needs more packages, whose versions it names itself.
TORCH := torch==2.13.0
RUN_DIR ?= demo-run

.DEFAULT_GOAL := help
.PHONY: help demo test coverage test-slow package docs docs-serve lint format bench-solver bench-metrics bench-advice bench-practice clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

# The stamp is written last, so an interrupted install is done again.
$(VENV)/.all: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --no-deps -r constraints.txt
	$(PIP) --no-build-isolation $(TORCH) -e '.[all]'
	$(COMPILE)
	touch $@

$(VENV)/.dev: $(VENV)/.all constraints-dev.txt
	$(PIP) --require-hashes --no-deps -r constraints-dev.txt
	$(PIP) --no-build-isolation $(TORCH) -e '.[dev]'
	$(COMPILE)
	touch $@

demo: $(VENV)/.all ## Train on digits in two settings and write demo-run/report.html
	$(BIN)/tightframe run --out $(RUN_DIR) --resume

test: $(VENV)/.dev lint ## Lint, type-check and test (under 10 minutes)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow'

coverage: $(VENV)/.dev ## The same tests, half as slow again, with the lines that they miss
	$(BIN)/python -m pytest -n 2 --dist worksteal -m 'not slow' --cov --cov-report=term:skip-covered

test-slow: $(VENV)/.dev ## The longer checks as well
	$(BIN)/python -m pytest

# Material announces its successor in red; nothing is wrong.
docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.dev ## The documentation, into site/; needs no network once installed
	$(BIN)/python -m mkdocs build --strict

docs-serve: docs ## The same at http://127.0.0.1:8000
	$(BIN)/python -m http.server --bind 127.0.0.1 --directory site 8000

lint: $(VENV)/.dev ## ruff, mypy and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

package: $(VENV)/.dev ## Wheel and source distribution into dist/, checked; the wheel tried alone
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(BIN)/python -m twine check --strict dist/*
	DIST=dist $(BIN)/python -m pytest tests/test_package.py

format: $(VENV)/.dev ## Rewrite the code in ruff's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench-solver: $(VENV)/.dev ## Time the solver against CVXPY (up to an hour) into benchmarks/results
	$(BIN)/python benchmarks/solver.py
	$(BIN)/python benchmarks/plot_solver.py

bench-metrics: $(VENV)/.dev ## Time the metrics against their peer (PEER=folder of neural-collapse)
	$(BIN)/python -m benchmarks.metrics $(if $(PEER),--peer $(PEER))

bench-advice: $(VENV)/.dev ## Train as advised and not (half an hour; needs Fashion-MNIST)
	$(BIN)/python -m benchmarks.advice

bench-practice: $(VENV)/.dev ## Judge ordinary networks (40 minutes on 2 cores; needs Fashion-MNIST)
	$(BIN)/python -m benchmarks.practice

clean: ## Remove the environment, what the demo wrote, and the site
	rm -rf $(VENV) $(RUN_DIR) site

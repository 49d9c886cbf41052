# Everything here needs Python 3.11 or newer and make. Each target sets itself up in .venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready
PEERS := .venv/.ready-bench
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check --no-input

define OLD_PYTHON
import sys
if sys.version_info < (3, 11):
    sys.exit("stepflows needs Python 3.11 or newer; $(PYTHON) is %d.%d. Name another one: make PYTHON=python3.11 $(MAKECMDGOALS)" % sys.version_info[:2])
endef
export OLD_PYTHON

.DEFAULT_GOAL := help
.PHONY: help demo serve test coverage prove bench screenshots lint style types layers messages lock clean

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*## /make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(STAMP)  ## check out 200 orders on a Celery worker, twice, and show what ran
	@$(BIN)/python manage.py demo

serve: $(STAMP)  ## the example shop and its admin in the browser
	@$(BIN)/python manage.py serve

test: $(STAMP)  ## the whole test suite (ARGS="-k word" for a part, TEST_DATABASE=postgresql for another database)
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m pytest -n 2 --cov --cov-report= --cov-fail-under=0 $(ARGS)

coverage: test  ## the same, and the branch coverage of stepflows/, at least 98 %
	@$(BIN)/coverage report

prove: $(STAMP)  ## an hour of kills, outages, interleavings, fuzzers and a soak (ARGS="--minutes 5", ARGS="soak=10 kills")
	@$(BIN)/python -m tests.prove $(ARGS)

bench: $(PEERS)  ## what steps cost beside the alternatives, in one run (ARGS="hit map" for a part of it)
	@$(BIN)/python -m tests.benchmarks $(ARGS)

screenshots: $(STAMP)  ## the pictures of the README, taken from the example shop with Chromium
	@$(BIN)/python -m tests.screenshots

lint: style types layers  ## style, types, layers

style: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

layers: $(STAMP)
	@$(BIN)/lint-imports --no-logo

messages: $(STAMP)  ## collect what is to be translated, and compile the translations (needs gettext)
	@command -v xgettext msgfmt >/dev/null || { echo "make messages needs xgettext and msgfmt; install the gettext tools."; exit 1; }
	@cd stepflows && ../$(BIN)/django-admin makemessages --locale de --no-obsolete --no-wrap --add-location file -v 0
	@cd stepflows && ../$(BIN)/django-admin compilemessages --locale de -v 0

lock:  ## pin anew what pyproject.toml asks for
	@PYTHON="$(PYTHON)" sh .ci/lock

clean:  ## remove what the other targets made
	rm -rf .venv .venv-* .run build dist .coverage .coverage.* htmlcov .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c "$$OLD_PYTHON"
	@echo "Setting up .venv, once ..."
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	@$(PIP) install -r requirements-dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $(STAMP)

$(PEERS): $(STAMP) requirements-bench.txt
	@echo "Adding what the benchmark compares with, once ..."
	@$(PIP) install --no-deps -r requirements-bench.txt
	@touch $(PEERS)

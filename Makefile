# Everything here sets itself up: python >= 3.11 and make are enough.
PYTHON ?= python3
OUT ?= runs/demo
JOBS ?= 2

VENV := .venv
BIN := $(VENV)/bin
EXTRAS := plot,hf,fast,cluster,communities,images,docs,dev
CODE := $(wildcard src tests benchmarks examples tools)

# One thread in each process: more of them are slower on a busy machine, and give other last digits.
export OMP_NUM_THREADS := 1
export MKL_NUM_THREADS := 1
export OPENBLAS_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup demo test check format bench docs constraints clean

help:  ## show the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(VENV)/.ready  ## make .venv from constraints.txt (does nothing when it is up to date)

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "modscope needs Python 3.11 or newer, and $(PYTHON) is older; say: make PYTHON=python3.12"; exit 2; }
	@echo "Setting up $(VENV): two to five minutes the first time"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --constraint constraints.txt hatchling editables
	@$(BIN)/python -m pip install -qq --constraint constraints.txt --no-build-isolation --editable '.[$(EXTRAS)]'
	@touch $@

demo: setup  ## two digits at once: three networks, the whole analysis, a report (OUT=runs/demo)
	@$(BIN)/modscope demo --out $(OUT)

test: setup  ## all tests (JOBS=2 processes)
	@$(BIN)/pytest -n $(JOBS) --dist worksteal

check: setup  ## format, lint, types, layers, and the rules of the house
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/pytest tests/test_house.py tests/test_public_names.py

format: setup  ## put the code into its format
	@$(BIN)/ruff check --fix-only --quiet $(CODE)
	@$(BIN)/ruff format $(CODE)

bench: setup  ## every benchmark: ours beside a named baseline, in CPU time
	@$(BIN)/python tools/bench.py $(ONLY)

docs: setup  ## the documentation site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "site/index.html - or, with search: python3 -m http.server --directory site"

constraints:  ## pin anew: what an empty environment gets today
	@$(PYTHON) tools/pin.py '$(EXTRAS)' > constraints.txt.new
	@mv constraints.txt.new constraints.txt

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) site dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

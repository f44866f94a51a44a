# Nightshift. `make` alone says what there is.
#
# A fresh machine needs git, make, a C compiler, and Python 3.11 or newer with pip. All else goes into .venv, in the
# versions and with the hashes of requirements/*.txt.

MAKEFLAGS += --no-builtin-rules --no-print-directory
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo up test check bench chaos lint format types imports lock clean

# The first Python that runs and is new enough (a version manager's shim may be on PATH and fail). In an environment that
# is active it is the one that it was made from: the environment may have no pip.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13 python3.14; do \
  "$$p" -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys._base_executable)' 2>/dev/null \
  && break; done)

# More options for the command behind a target: make demo ARGS="--file sales.csv", make test ARGS="-k ledger".
ARGS ?=
# Tests that run at once.
JOBS ?= 3
# How long `make chaos` goes on.
MINUTES ?= 5

BIN := .venv/bin
INSTALLED := .venv/.installed
BENCH_INSTALLED := .venv-bench/.installed

# uv from PATH when there is one that runs, else our own, locked like everything else.
ifeq ($(shell uv --version >/dev/null 2>&1 && echo yes),yes)
UV := uv
OWN_UV :=
else
UV := .tools/bin/uv
OWN_UV := .tools/bin/uv
endif
export UV_PYTHON_DOWNLOADS := never

# uv does not read pip's configuration; who has set an index for pip means it for uv too.
USE_PIP_INDEX = index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$("$(PYTHON)" -m pip config get global.index-url \
  2>/dev/null)}}"; [ -z "$$index" ] || export UV_DEFAULT_INDEX="$$index";

NEED_PYTHON = "$(or $(PYTHON),false)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
  echo "Nightshift needs Python 3.11 or newer$(if $(PYTHON), and $(PYTHON) is not). Install one or name it:" \
  "make PYTHON=/path/to/python3.11 …" >&2; exit 1; }

help: ## this list
	@echo "Nightshift runs AI-agent jobs unattended. Targets:"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile
	@echo "Options for the command behind a target: make demo ARGS=\"--file sales.csv\""

install: $(INSTALLED) ## prepare .venv with exactly what is locked
	@echo "· ready: $(BIN)/nightshift"

demo: $(INSTALLED) ## start everything, run one real job on a real file, show the result and its cost, stop
	@$(BIN)/nightshift demo $(ARGS)

up: $(INSTALLED) ## start everything on this machine and keep it running (Ctrl-C stops it)
	@$(BIN)/nightshift up $(ARGS)

test: $(INSTALLED) ## run the tests, real Redis included
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadscope -m "not chaos" $(ARGS)

# Real processes on a busy machine: what fails is tried once more, and the summary names it as rerun.
check: lint types imports ## all that CI checks: format, lint, types, imports, tests with coverage
	@echo "· tests with coverage"
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadscope -m "not chaos" --reruns 1 -r R \
	  --cov --cov-report=term $(ARGS)

bench: $(INSTALLED) $(BENCH_INSTALLED) ## measure, and write the table as Markdown and JSON
	@$(BIN)/python -m bench $(ARGS)

chaos: $(INSTALLED) ## run the long fault suite, tests/faults, for MINUTES=5, and fuzz the API and memory at length
	@echo "· faults at random for $(MINUTES) minutes: tests/faults"
	@CHAOS_MINUTES="$(MINUTES)" $(BIN)/python -m pytest -m chaos -o timeout=0 tests/faults tests/api tests/memory $(ARGS)

lint: $(INSTALLED) ## is it formatted, and does ruff have nothing to say
	@echo "· format"
	@$(BIN)/ruff format --quiet --check . || { echo "run: make format" >&2; exit 1; }
	@echo "· lint"
	@$(BIN)/ruff check --quiet .

format: $(INSTALLED) ## format the code and apply ruff's safe fixes
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

types: $(INSTALLED) ## mypy --strict
	@echo "· types"
	@$(BIN)/mypy

imports: $(INSTALLED) ## who may import whom
	@echo "· imports"
	@$(BIN)/lint-imports --no-logo

UPGRADE ?=
COMPILE = $(UV) pip compile --universal --generate-hashes --no-emit-index-url --no-header -q \
  $(if $(UPGRADE),--upgrade)
lock: | $(OWN_UV) ## resolve requirements/*.txt anew; UPGRADE=1 takes the newest versions
	@$(USE_PIP_INDEX) set -e; \
	echo "· requirements/run.txt"; \
	$(COMPILE) pyproject.toml --extra embedded --extra examples -o requirements/run.txt; \
	echo "· requirements/dev.txt"; \
	$(COMPILE) pyproject.toml --extra a2a --extra embedded --extra examples --group dev -c requirements/run.txt \
	  -o requirements/dev.txt; \
	echo "· requirements/a2a.txt"; \
	$(COMPILE) pyproject.toml --extra a2a -c requirements/dev.txt -o requirements/a2a.txt; \
	echo "· requirements/s3.txt"; \
	$(COMPILE) pyproject.toml --extra s3 -o requirements/s3.txt; \
	echo "· requirements/bench.txt"; \
	$(COMPILE) requirements/bench.in -o requirements/bench.txt; \
	echo "· requirements/tools.txt"; \
	$(COMPILE) requirements/tools.in -o requirements/tools.txt

clean: ## remove environments and caches; the data in .nightshift stays
	@rm -rf .venv .venv-bench .tools build dist htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis \
	  .import_linter_cache .coverage .coverage.*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- environments: each has a stamp, younger than the lock it was made from

$(INSTALLED): requirements/dev.txt pyproject.toml | $(OWN_UV)
	@$(NEED_PYTHON)
	@echo "· .venv, from requirements/dev.txt (a minute or two the first time)"
	@$(BIN)/python -c '' 2>/dev/null || $(UV) venv -q --clear --python "$(PYTHON)" .venv
	@$(USE_PIP_INDEX) $(UV) pip sync -q --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(UV) pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# Of its own, because arq, which the benchmark compares with, needs an older redis-py than we do.
$(BENCH_INSTALLED): requirements/bench.txt | $(OWN_UV)
	@$(NEED_PYTHON)
	@echo "· .venv-bench, from requirements/bench.txt"
	@.venv-bench/bin/python -c '' 2>/dev/null || $(UV) venv -q --clear --python "$(PYTHON)" .venv-bench
	@$(USE_PIP_INDEX) $(UV) pip sync -q --python .venv-bench/bin/python --require-hashes requirements/bench.txt
	@touch $@

# Into a plain folder: that needs pip alone, where a venv would need ensurepip, which some systems package apart.
.tools/bin/uv: requirements/tools.txt
	@$(NEED_PYTHON)
	@echo "· uv, from requirements/tools.txt"
	@"$(PYTHON)" -m pip install -q --disable-pip-version-check --root-user-action=ignore --upgrade \
	  --require-hashes --target .tools -r requirements/tools.txt
	@touch $@

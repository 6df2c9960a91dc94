# Every target sets up what it needs in .venv; `make help` lists them.
#   PYTHON=python3.12     the interpreter that .venv is made from (3.10 or later)
#   TORCH=torch==2.6.0    another torch requirement
#   JOBS=2                how many processes run the tests
#   SELECT='-k attention' which of them
#   OUT=outputs/gpu       where test-gpu writes

SHELL := /bin/bash
PYTHON ?= python3
TORCH ?= torch==2.13.0
JOBS ?= 2
OUT ?= outputs/gpu
TRITON := triton==3.6.0

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

CPP := $(shell find csrc tests/native -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
BUILD_INPUTS := pyproject.toml setup.py CMakeLists.txt constraints.txt $(CPP)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test coverage test-emulation test-gpu bench counts results lint site build clean FORCE

help:  ## Show this list.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: $(VENV)/installed  ## Generate a 10 x 10 grid of images: outputs/fashion-mnist.png.
	$(BIN)/marfast generate --model fashion-mnist --labels 0-9 --per-label 10 --out outputs/fashion-mnist.png --force

# The second line builds once more, in a copy with another op: not beside the first.
PAGE := tests/build/test_adding_an_op.py
test: $(VENV)/dev  ## Run the tests.
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --ignore $(PAGE) $(SELECT)
	$(BIN)/python -m pytest -q $(PAGE)

coverage: $(VENV)/dev  ## Run them more slowly, and show which lines of marfast/ they don't reach.
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --ignore $(PAGE) --cov --cov-report=term-missing

test-emulation: $(VENV)/dev  ## Emulate the GPU kernels at MAR-B's real geometry, too, and mutate them (long).
	MARFAST_TEST_EMULATION=1 $(BIN)/python -m pytest tests/emulation
	$(BIN)/python -m tests.emulation.mutation

# In the Python that is there: it needs torch, triton, numpy and pytest, and no network.
test-gpu:  ## On a machine with a GPU: build, right or wrong, times, profilers, to OUT (PYTHON=..., OPTIONS="--budget 390").
	$(PYTHON) -m tests.gpu.session --out $(OUT) $(OPTIONS)

bench: $(VENV)/dev  ## Time the ops and a small generation beside plain PyTorch.
	$(BIN)/python -m pytest benchmarks --benchmark-only

counts: $(VENV)/dev  ## Rewrite the committed operator and instruction counts: commit them with a reason.
	$(BIN)/python -m benchmarks.studies.counts --update

results: $(VENV)/dev  ## Measure all that README and docs/performance.md report (ORIGINAL=path/to/mar PARTS=head,scaling), and rewrite them.
	$(BIN)/python -m benchmarks.studies.publish $(if $(ORIGINAL),--original $(ORIGINAL)) $(if $(PARTS),--parts $(PARTS))

lint: $(VENV)/dev  ## Check style and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP)

site: $(VENV)/dev  ## Build the documents as a site, with warnings as errors: build/site.
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

build: $(VENV)/installed  ## Build the native extension and install the package in place.

clean:  ## Remove the environment and everything built.
	rm -rf $(VENV) build dist *.egg-info marfast/_cpu.*.so marfast/_cuda.*.so

# The stamps. `installed`: torch, the package and what it needs at run time; `dev`: the tools, too.
# Triton is the one that torch brings; a torch for the CPU brings none, and the tests need no GPU.
$(VENV)/installed: $(VENV)/torch-requirement $(BUILD_INPUTS)
	$(PIP) '$(TORCH)'
	$(PIP) setuptools wheel cmake ninja pybind11
	$(PIP) --no-build-isolation --editable .
	@$(BIN)/python -c 'from marfast.ops.runtime import cpu; print("marfast:", cpu.describe())'
	@touch $@

$(VENV)/dev: $(VENV)/installed
	$(PIP) --no-build-isolation --editable '.[dev,docs,train]'
	@$(BIN)/python -c 'import triton' 2> /dev/null || $(PIP) --no-deps '$(TRITON)' || \
	  echo "no $(TRITON) for this machine: its tests are skipped"
	@touch $@

# Rewritten only when TORCH changes.
$(VENV)/torch-requirement: FORCE | $(BIN)/python
	@echo '$(TORCH)' | cmp -s - $@ || echo '$(TORCH)' > $@

$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || \
	  { echo "error: $(PYTHON) not found; name another interpreter: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "error: $(PYTHON) is older than Python 3.10; name another: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || \
	  { echo "error: $(PYTHON) can't make virtual environments: its venv or ensurepip module is missing" \
	    "(on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

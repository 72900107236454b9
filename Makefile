# make demo | test | test-all | bench | sanitize | clean.   PYTHON, VENV, PIP_FLAGS and PARALLEL may be given: make demo PYTHON=python3.12
PYTHON ?= python3
VENV ?= .venv
PIP_FLAGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet $(PIP_FLAGS) --constraint constraints.txt
# A test process a core, four at most: each holds a torch and an ONNX Runtime. PARALLEL= runs them in one.
PARALLEL ?= --numprocesses=logical --maxprocesses=4 --dist=worksteal
KERNEL_SOURCES := $(shell find kernels -name CMakeLists.txt -o -name '*.cpp' -o -name '*.h')

.PHONY: demo test test-all bench sanitize clean
.DELETE_ON_ERROR:

# Stamps: pip runs again only when what it would install has changed.
INSTALLED := $(VENV)/.installed
REAL_MODELS := $(VENV)/.real-models
PEERS := $(VENV)/.peers
RAY := $(VENV)/.ray

demo: $(INSTALLED)
	$(BIN)/mulshift compile examples/efficientnet_lite0.py:model \
	  --calibration examples/efficientnet_lite0.py:samples -o demo/efficientnet-lite0
	$(BIN)/python examples/demo.py demo/efficientnet-lite0 demo/float.onnx

# Layer borders are tests too: tests/test_borders.py.
test: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(INSTALLED) $(REAL_MODELS) $(RAY)
	$(BIN)/python -m pytest $(PARALLEL) -m ""

# All run, whatever the first says. ARGS=--quick for minutes; with --json FILE, run one script by itself.
bench: $(INSTALLED) $(PEERS) $(REAL_MODELS)
	@status=0; for script in main_job cpu_kernels transformers mixed_precision sparsity; do \
	  echo "benchmarks/$$script.py $(ARGS)"; $(BIN)/python benchmarks/$$script.py $(ARGS) || status=1; \
	done; exit $$status

# The kernels under the address and undefined-behaviour sanitizers, inside ONNX Runtime.
sanitize: $(INSTALLED)
	$(BIN)/python benchmarks/sanitizer_rows.py --seconds 60

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "mulshift needs Python 3.11 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)

# foolbox is here for the 20 labelled images in its wheel; none of its dependencies are wanted.
$(INSTALLED): pyproject.toml constraints.txt $(KERNEL_SOURCES) | $(BIN)/python
	$(PIP) scikit-build-core cmake ninja
	$(PIP) --no-build-isolation --editable '.[demo,test]'
	$(PIP) --no-deps foolbox
	touch $@

$(REAL_MODELS): tests/real-models.txt constraints.txt | $(INSTALLED)
	$(PIP) --no-deps --requirement tests/real-models.txt
	touch $@

$(PEERS): pyproject.toml constraints.txt | $(INSTALLED)
	$(PIP) --no-build-isolation --editable '.[peers]'
	touch $@

$(RAY): pyproject.toml constraints.txt | $(INSTALLED)
	$(PIP) --no-build-isolation --editable '.[ray]'
	touch $@

clean:
	rm -rf $(VENV) build dist demo kernels/mulshift_kernels.*

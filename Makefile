# The two commands of the README, make demo and make test, set everything up themselves.

PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
WORKERS ?= 2
# The CPU build; the index of `pip install torch` may give a CUDA build of several gigabytes.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# The versions for this Python, found by scripts/pins.py.
CONSTRAINTS := $(shell $(PYTHON) -c "import sys; minor = min(sys.version_info[1], 13); print('constraints.txt' if minor < 12 else 'constraints-py3%d.txt' % minor)")
VERSION := $(shell $(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])")
# Left in $(VENV) by what has been installed there: nothing yet, what the demo needs, everything.
EMPTY = $(VENV)/.empty-$(VERSION)
DEMO_READY = $(VENV)/.demo-ready-$(VERSION)
READY = $(VENV)/.ready-$(VERSION)
INSTALL = $(PY) -m pip install --disable-pip-version-check -c $(CONSTRAINTS)

.PHONY: demo test test-slow coverage test-newest compilers test-accelerators lint docs docs-serve venv torch clean

.NOTPARALLEL:    # what demo and test need is installed into one environment

demo: $(DEMO_READY)
	$(PY) -m uniface_jax.demo_data runs/faces
	$(PY) -m uniface_jax.train --config=demo --workdir=runs/demo
	$(PY) -m uniface_jax.evaluate --model=runs/demo --protocol=verification --data=runs/faces/orl.bin --output=runs/demo/evaluation
	$(PY) -m uniface_jax.export --workdir=runs/demo --output=runs/demo/model.onnx --report=runs/demo/export.json
	@$(PY) scripts/demo_summary.py runs/demo

# Where Python is told to keep no compiled modules, every process of a test would compile them anew.
test test-slow coverage test-newest test-accelerators: export PYTHONDONTWRITEBYTECODE =

test: venv lint
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25 -m "not slow"

test-slow: venv
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25 --hypothesis-profile=deep -m "(slow or hypothesis) and not accelerator"

# The share of lines and branches that the fast part runs, in this process and in those it starts. It
# fails where one fell below tests/coverage.json; `make coverage KEEP=--keep` writes that anew.
coverage: venv
	rm -rf build/coverage && mkdir -p build/coverage
	$(PY) -m coverage run -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow"
	$(PY) -m coverage combine --quiet
	$(PY) -m coverage json --quiet -o build/coverage/report.json
	$(PY) scripts/coverage_figure.py build/coverage/report.json $(KEEP)

# On the newest Python: the fast tests of what Python, NumPy and JAX can change for a user and that
# compiles little: readers, sources, checkpoints, evaluation, losses, files, commands. What compiles
# training steps for minutes is left to the other Python, for CI's 40 minutes. All of it is
# `make test PYTHON=python3.13 VENV=.venv-3.13`, of which no whole run has been made.
NEWEST ?= python3.13
NEWEST_TESTS = $(addprefix tests/,checkpoints cli config configs data evaluate files losses test_errors.py test_import.py)

test-newest:
	@$(NEWEST) -c "" || { echo "error: $(NEWEST) does not run: make test-newest NEWEST=..."; exit 2; }
	$(MAKE) venv PYTHON=$(NEWEST) VENV=.venv-3.13
	.venv-3.13/bin/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=25 -m "not slow" $(NEWEST_TESTS)

# XLA's for GPUs and TPUs that need not be there: 5 GB.
compilers: venv
	$(INSTALL) -e ".[cuda,tpu]"

# Steps compiled for such; a test whose compiler is missing then fails.
test-accelerators: compilers
	UNIFACE_TEST_ACCELERATORS=1 $(PY) -m pytest -n $(WORKERS) --durations=0 -m accelerator tests/plan

lint: venv
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(VENV)/bin/lint-imports

# The documentation's site, in build/site; a warning is an error. docs-serve shows it while you write.
docs: venv
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict --quiet
	@echo "open build/site/index.html"

docs-serve: venv
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs serve

venv: $(READY)

$(EMPTY): pyproject.toml $(wildcard constraints*.txt)
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1); Python 3.11 or newer is needed: make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

# Modules are compiled where they are first imported: most of them never are.
$(DEMO_READY): $(EMPTY)
	@echo "== setting up $(VENV) for the demo: 1 GB on disk, half a minute"
	$(INSTALL) --no-compile -e ".[demo,export]"
	@touch $@

$(READY): $(EMPTY)
	@echo "== setting up $(VENV) for the tests: 3 GB on disk, a minute or two"
	$(INSTALL) -e ".[test,docs]"
	@touch $(DEMO_READY) $@

# Optional: PyTorch, with which the tests that read .pth files run too.
torch: venv
	$(PY) -m pip install --disable-pip-version-check --index-url $(TORCH_INDEX) "torch==2.13.0"

clean:
	rm -rf $(VENV) .venv-3.13 runs build *.egg-info

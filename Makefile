# `make demo` and `make test` install what they need and say so: Erlang and Elixir with apt-get when
# run as root, everything in Python into .venv. Without Erlang the demo has Python nodes alone.

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := $(shell cat erlang_interop/packages.txt)
HAS_APPLICATIONS := erl -noshell -eval \
	'halt(length([A || A <- [mnesia, ssl], is_tuple(code:lib_dir(A))]))'
GET_BEAM := ( \
	if which erl epmd elixir >/dev/null && $(HAS_APPLICATIONS); then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then \
		echo "Installing $(PACKAGES) with apt-get"; \
		apt-get -qq update && DEBIAN_FRONTEND=noninteractive \
			apt-get -qqy install --no-install-recommends $(PACKAGES) >/dev/null && exit 0; \
	fi; \
	echo "BEAM nodes need Erlang and Elixir. As root: apt-get install $(PACKAGES)" >&2; exit 1 )
# Each worker and each command that a test runs would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

PYTEST_ARGS ?=
# Two for each of up to 8 cores: tests wait more than they compute.
WORKERS ?= $(shell cores=$$(nproc); [ $$cores -lt 8 ] || cores=8; expr 2 '*' $$cores)
PARTS := pytest -n $(WORKERS) -m "not slow" tests/net tests/otp tests/cluster
# Hundreds of BEAMs are started: with one scheduler each they take a fifth less of the processors.
SMALL_BEAMS := ERL_AFLAGS="+S 1 +SDcpu 1 +SDio 1 +sbwt none +sbwtdcpu none +sbwtdio none"
FUZZ_TARGETS ?= decoder framing handshake epmd
# For each target; 0 is for ever.
FUZZ_SECONDS ?= 60
SUITES ?= bookworm trixie sid
# Those that no Debian release has.
PYTHONS ?= python3.12
SOAK_MINUTES ?= 30
MUTATION_MINUTES ?= 30

.PHONY: demo quick test full modes pythons nightly lint fuzz bench soak mutation interop-matrix \
	beam clean

demo: .venv/installed
	@echo "A cluster of Python nodes"
	@$(BIN)/python -m erlang_interop.python_demo
	@if $(GET_BEAM); then \
		echo "A cluster of Python and BEAM nodes"; $(BIN)/python -m erlang_interop.demo; fi

# What needs no BEAM.
quick: .venv/installed lint
	$(BIN)/pytest -n $(WORKERS) -m "not beam and not slow" --hypothesis-profile quick $(PYTEST_ARGS)

# Everything but what takes long by nature.
test: beam .venv/installed lint
	$(SMALL_BEAMS) $(BIN)/pytest -n $(WORKERS) -m "not slow" $(PYTEST_ARGS)

# The whole suite, on BEAMs with a scheduler for each core, and how much of the code it covers. Code
# that is measured is slow, so each time limit is twice as long.
full: export PYBEETHOVEN_TEST_UNIT ?= 2
full: beam .venv/installed
	rm -f .cache/coverage*
	$(BIN)/coverage run -m pytest -n $(WORKERS) --model-seconds 300 $(PYTEST_ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report $(if $(PYTEST_ARGS),--fail-under=0)
	$(MAKE) modes

# What has most to do with asyncio, in Python's development mode, and without its assertions.
modes: beam .venv/installed
	PYTHONDEVMODE=1 $(BIN)/$(PARTS)
	PYTHONOPTIMIZE=1 $(BIN)/$(PARTS) -W "ignore:assertions not in test:pytest.PytestConfigWarning"

# On other Pythons than that of .venv, and there with eager tasks, too, which Python 3.12 brought.
pythons: beam
	@set -e; for python in $(PYTHONS); do \
		venv=.cache/pythons/$$(basename $$python); \
		$$python -m venv $$venv; \
		$$venv/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
		$$venv/bin/pytest -n $(WORKERS) -m "not slow" $(PYTEST_ARGS); \
		$$venv/bin/$(PARTS) --eager-tasks; \
	done

# What takes hours, or wants other systems: the matrix needs root and debootstrap.
nightly:
	$(MAKE) --keep-going full mutation soak fuzz pythons interop-matrix FUZZ_SECONDS=600

lint: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# What it finds is in .cache/fuzz, and is found again first by the next run.
fuzz: .venv/installed
	@for target in $(FUZZ_TARGETS); do \
		$(BIN)/python -m fuzz.run $$target .cache/fuzz/$$target \
			-max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 || exit 1; \
	done

bench: .venv/bench beam
	@$(BIN)/python -m benchmarks

# Peers die every few seconds; in the end everybody has to know what the cluster knows.
soak: .venv/installed beam
	$(BIN)/python -m tests.model.soak --minutes $(SOAK_MINUTES)

# It prints each change of the code that no test noticed.
mutation: .venv/installed beam
	@$(BIN)/python -m tools.mutate --minutes $(MUTATION_MINUTES)

# Needs root, debootstrap and 700 MB for each release, in .cache/roots.
interop-matrix: .venv/installed
	@$(BIN)/python -m erlang_interop.matrix $(SUITES) -- -n $(WORKERS) -m "not slow" $(PYTEST_ARGS)

beam:
	@$(GET_BEAM)

.venv/installed: pyproject.toml
	@echo "Installing pybeethoven and what its tests need into .venv"
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || [ "$$(id -u)" != 0 ] || \
		{ apt-get -qq update && apt-get -qqy install python3-venv >/dev/null; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv/bench: .venv/installed
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

clean:
	rm -rf .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis

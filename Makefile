# make bench   set up, run the suite `digits` on the device at hand, compare, write the report
# make test    set up, run the tests
# make test-fast   those that take no more than about two seconds each, for the loop of change and test
# make check   lint, types, import layers
# make docs    write the generated tables of docs/, and build the pages into build/docs
# make gpu-check   on a machine with a GPU: everything that needs one, in at most 8 minutes; needs no network
#                  OUT=folder for the record, PYTHON=interpreter, VERIFY=record to judge a record on any machine
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SUITE ?= digits
STAMP := $(VENV)/.installed
EXPORT_ENV := PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

.PHONY: bench test test-fast check docs gpu-check setup clean

setup: $(STAMP)

# The stamp is as new as the files that decide what is installed; a half-made environment leaves none.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

bench: $(STAMP)
	$(EXPORT_ENV) $(BIN)/imgbench run $(SUITE)

# Two processes of two threads each on two cores would spend most of their time waiting for one another. The one that
# is done takes over tests of the other one.
IN_PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

test: $(STAMP)
	$(IN_PARALLEL) -m "not quiet"
	$(BIN)/python -m pytest -q -m quiet

test-fast: $(STAMP)
	$(IN_PARALLEL) -m "not slow and not quiet"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m benches.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Works offline. It uses the Python that PYTHON names, else the environment of `make setup`, else the first Python 3.11
# or newer on the PATH that has torch, whatever its name. Any Python with numpy and scipy can judge a record.
HAS_TORCH := import sys, importlib.util as u; sys.exit(sys.version_info < (3, 11) or not u.find_spec("torch"))
CANDIDATES := python3 python python3.14 python3.13 python3.12 python3.11

gpu-check:
	@found="$(if $(filter-out file,$(origin PYTHON)),$(PYTHON),$(if $(wildcard $(STAMP)),$(BIN)/python))"; \
	for python in $(CANDIDATES); do \
	  test -z "$$found" && "$$python" -c '$(HAS_TORCH)' 2>/dev/null && found="$$python"; \
	done; \
	test -n "$$found" || found="$(if $(VERIFY),python3)"; \
	test -n "$$found" || { echo "no Python 3.11 or newer on the PATH has torch; name one: make gpu-check PYTHON=..."; exit 2; }; \
	echo "gpu-check: $$found" >&2; \
	$(EXPORT_ENV) "$$found" -m benches.gpu_check $(if $(OUT),--out $(OUT)) $(if $(VERIFY),--verify $(VERIFY)) \
	  $(if $(COMMIT),--commit $(COMMIT))

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

# make bench   set up, run the suite `digits` on the default device, compare, write the report
# make test    set up, run the tests
# make test-fast   set up, run the tests that take at most about two seconds each
# make check   lint, types, import layers
# make docs    write the generated tables of docs/, and build the pages into build/docs
# make gpu-check   on a machine with a GPU: check everything that needs one, in at most 8 minutes, without network
#                  OUT=folder for the record, PYTHON=interpreter, VERIFY=record to verify a record on any machine
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SUITE ?= digits
STAMP := $(VENV)/.installed
EXPORT_ENV := PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

.PHONY: bench test test-fast check docs gpu-check setup clean

setup: $(STAMP)

# The stamp is newer than the files that decide what is installed. An incomplete environment has none.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

bench: $(STAMP)
	$(EXPORT_ENV) $(BIN)/imgbench run $(SUITE)

# Each of the two processes has one thread, because more threads than cores would wait for each other. A process that
# has finished takes over tests of the other one.
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
# or newer on the PATH that has torch, whatever its name. Any Python with numpy and scipy can verify a record.
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

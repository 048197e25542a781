# make bench   set up, run the suite `digits` on the device at hand, compare, write the report
# make test    set up, run the tests
# make check   lint, types, import layers
# make gpu-check   on a machine with a GPU: everything that needs one, in at most 8 minutes; needs no network
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
SUITE ?= digits
STAMP := $(VENV)/.installed
EXPORT_ENV := PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1

.PHONY: bench test check gpu-check setup clean

setup: $(STAMP)

# The stamp is as new as the files that decide what is installed; a half-made environment leaves none.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

bench: $(STAMP)
	$(EXPORT_ENV) $(BIN)/imgbench run $(SUITE)

test: $(STAMP)
	$(BIN)/python -m pytest -q

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Offline too: with the environment of `make setup` where there is one, else with the Python at hand and what it has.
gpu-check:
	$(EXPORT_ENV) $(if $(wildcard $(STAMP)),$(BIN)/python,$(PYTHON)) -m benches.gpu_check $(if $(OUT),--out $(OUT)/gpu-check.json)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache

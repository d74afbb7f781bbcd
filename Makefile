# interview-presence: everything starts here. `make run` needs Python 3.11 or newer with pip and venv, and git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Compile each file once, and not in each of the hundreds of processes that the tests start, whatever is set outside.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run example test soak check bench format clean

$(READY): pyproject.toml presence_tracker/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[embedded,dev]' -e ./presence_tracker
	touch $@

run: $(READY)
	$(BIN)/presence dev $(if $(PORT),--port $(PORT))

example: $(READY)
	$(BIN)/python -m examples.streamlit_app.run $(if $(PORT),--port $(PORT))

test: $(READY)
	$(BIN)/python -m tests.prerequisites
	$(BIN)/python -m pytest -m 'not soak' -n 3 --dist loadfile --no-loadscope-reorder

soak: $(READY)
	$(BIN)/python -m pytest -m soak --timeout 1800

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.javascript

bench: $(READY)
	$(BIN)/python -m benchmarks

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .presence .mypy_cache .ruff_cache .pytest_cache .hypothesis node_modules client_js/node_modules

# `make up` starts kaos_hub on this machine, `make test` passes the tests. Both make `.venv` first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: up test lint format clean

up: $(VENV)
	$(BIN)/kaos up $(ARGS)

test: $(VENV)
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[hub,postgresql,test,lint]'
	touch $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info

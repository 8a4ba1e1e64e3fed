# `make up` starts kaos_hub on this machine, `make test` passes the tests. Both make `.venv` first.
# `make kubernetes` brings it up on the cluster of kubectl's present context: see docs/howto/kubernetes.md.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# As this machine and the cluster's nodes see it, and as pods do; without any, the one that a local cluster has.
REGISTRY ?=
CLUSTER_REGISTRY ?=
PUSH ?=

.PHONY: up test lint format docs images scan audit s3-server kubernetes kubernetes-down test-kubernetes clean

up: $(VENV)
	$(BIN)/kaos up $(ARGS)

test: $(VENV)
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint $$(git ls-files '*Dockerfile')

format: $(VENV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# A link that leads nowhere fails.
docs: $(VENV)
	$(BIN)/python -m sphinx -W --keep-going -q -b html -d build/doctrees -c docs/site . build/docs
	@echo "build/docs/index.html"

images: $(VENV)
	$(BIN)/python images/make.py --registry "$(REGISTRY)" $(if $(PUSH),--push) $(ARGS)
	$(BIN)/python images/sbom.py --registry "$(REGISTRY)"

# Asks a database on the Internet what is known against what is in the images.
scan: $(VENV)
	$(BIN)/python images/scan.py

# The same for Python's packages alone, pinned or installed here.
audit: $(VENV)
	$(BIN)/python images/audit.py

# A real S3 server for tests: OpenStack Swift, in an environment of its own.
s3-server: .swift

.swift: Makefile
	$(PYTHON) -m venv .swift
	.swift/bin/python -m pip install --quiet --disable-pip-version-check 'swift>=2.37,<3' || { rm -rf .swift; exit 1; }
	touch .swift

kubernetes: $(VENV)
	$(BIN)/python helm/bring_up.py up --registry "$(REGISTRY)" --cluster-registry "$(CLUSTER_REGISTRY)" $(ARGS)

kubernetes-down: $(VENV)
	$(BIN)/python helm/bring_up.py down

# Where no cluster can be had it says why, and that is no failure.
test-kubernetes: $(VENV)
	@cluster=$$(.ci/cluster) || { echo "test-kubernetes: skipped"; exit 0; }; \
	eval "$$cluster"; $(BIN)/python -m pytest -m kubernetes $(ARGS)

$(VENV): setup.cfg pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[hub,kubernetes,postgresql,s3,test,lint,docs]'
	touch $(VENV)

clean:
	rm -rf $(VENV) .swift build dist *.egg-info

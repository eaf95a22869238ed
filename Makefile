# Everything runs in .venv, which `make setup` builds from the pinned and hashed constraints.
PYTHON    ?= python3
FRAMEWORK ?= fastapi
HOST      ?= 127.0.0.1
PORT      ?= 8000
MODELS    ?= models
BIN       := .venv/bin
STAMP     := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup serve demo test lint types check coverage faults format bench bench-peers constraints clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make serve FRAMEWORK=flask PORT=9000 MODELS=dir serves that folder with Flask on port 9000"

setup: $(STAMP) ## build .venv with every dependency, pinned and hashed

$(STAMP): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Tandem needs Python 3.11 or newer; name one with make PYTHON=python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

serve: demo ## serve MODELS with FRAMEWORK on HOST:PORT, after training demo models if there are none
	$(BIN)/tandem serve --models $(MODELS) --framework $(FRAMEWORK) --host $(HOST) --port $(PORT) \
		$(if $(wildcard $(MODELS)/iris/*/manifest.json),--default-model iris)

demo: $(STAMP)
	@mkdir -p $(MODELS)
	@ls $(MODELS)/*/*/manifest.json >/dev/null 2>&1 || { \
		$(BIN)/tandem train iris --name iris --models $(MODELS) && \
		$(BIN)/tandem train diabetes --name diabetes --estimator ridge --models $(MODELS); }

test: $(STAMP) ## run every test, on all cores
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(STAMP) ## ruff: style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict, on service and training
	$(BIN)/mypy

check: lint types test ## lint, types and tests: what must pass before a commit

coverage: $(STAMP) ## run every test and report the coverage of service and training, at least 90 %
	$(BIN)/python -m pytest -n auto --dist worksteal --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

faults: $(STAMP) ## run the tests that show faults and print what came into docs/faults.md
	rm -rf .faults && mkdir .faults
	TANDEM_FAULTS=$(CURDIR)/.faults $(BIN)/python -m pytest -n auto --dist worksteal -m fault
	$(BIN)/python -m tests.faults.table .faults > docs/faults.md

format: $(STAMP) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## Tandem against naive apps and an echo over HTTP (25 minutes), protocols, coverage, start-up, decoding
	$(BIN)/python -m benchmarks.serving
	$(BIN)/python -m benchmarks.protocols
	$(BIN)/python -m benchmarks.coverage
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.decode

CACHE ?= .peers
bench-peers: $(STAMP) ## other model servers, each in an environment of its own under CACHE
	$(BIN)/python -m benchmarks.peers --cache $(CACHE) --install

constraints: ## pin every dependency anew (needs uv)
	uv pip compile pyproject.toml --extra train --extra gevent --extra arrow --extra grpc --extra jwt --extra redis --extra skops --group dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --upgrade -o constraints.txt

clean: ## remove .venv and caches; models stay
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*

# Every target does all the set-up it needs and may be repeated. `make help` lists them.
SHELL := bash
.DEFAULT_GOAL := help
RUN := deploy/setup/run
PY := .venv/bin/python

.PHONY: help
help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 16

.PHONY: demo
demo: ## Set up everything, deploy, promote a canary, take back bad releases, restore lost data; ARGS=--all to repeat all
	@$(RUN) demo $(ARGS)

.PHONY: test
test: ## Set up everything and run all tests on real components; ARGS="-k name" passes on to pytest
	@$(RUN) test $(ARGS)

.PHONY: test-thorough
test-thorough: ## Set up everything and run the long tests: every type of every database, killed swaps, backups in the UI
	@$(RUN) test --thorough $(ARGS)

.PHONY: bench
bench: setup ## Measure: lost requests, speed, memory
	@$(PY) -m benchmarks $(ARGS)

.PHONY: bench-verdict
bench-verdict: venv ## Judge simulated releases, check the promises; ARGS="--quick" for a tenth of them
	@nice $(PY) -m benchmarks.verdict $(ARGS)

.PHONY: bench-backup
bench-backup: setup ## Backups beside restic, borg, a bare upload and the bare dump; OPS_BENCH_SCALE=0.1 for less data
	@$(PY) -m benchmarks backup

.PHONY: lint
lint: venv ## Style, format and types
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

.PHONY: setup
setup: ## Virtual environment, Docker Engine, base image, images of the local stack
	@$(RUN) setup

.PHONY: venv
venv: ## Only the virtual environment
	@$(RUN) venv

.PHONY: images
images: ## Only images: the stack's and the sample application's, with the tests inside its builds
	@$(RUN) images
	@$(RUN) application

.PHONY: scan
scan: venv ## Scan the application's images with Trivy: fixable HIGH and CRITICAL findings fail
	@$(RUN) base && $(RUN) application && $(RUN) scan

.PHONY: stack
stack: ## Start only the local stack: registry, Azurite, Prometheus, Alertmanager, edges, front door
	@$(RUN) stack up

.PHONY: unit
unit: venv ## Only the tests that need no engine
	@$(PY) -m pytest -m "not real and not browser and not thorough" -n 2 $(ARGS)

.PHONY: down
down: ## Stop and remove what the demo started; says what it keeps
	@$(RUN) down

.PHONY: purge
purge: ## The same, and what `make down` keeps: .ops, .venv, the stack's images
	@$(RUN) purge

.PHONY: lock
lock: venv ## Renew requirements.txt from pyproject.toml
	@.venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-strip-extras \
	  --no-annotate --no-header -q --extra dev pyproject.toml -o requirements.txt

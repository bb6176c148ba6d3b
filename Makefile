# `make` alone lists the verbs. Each first makes .venv with dev/set-up if it is missing.
.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
# For every Python and platform that the project supports; the index's address stays out of the lock files.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml

# The tests run on the oldest of these PostgreSQLs that the system has, and on the newest, which is a Python package.
PACKAGES := 'postgresql-15|postgresql-16|postgresql-17' redis-server rabbitmq-server pgbouncer curl openssl

# The tests that use RabbitMQ and Redis.
NEWEST := events/test_topology.py expirer/test_relay.py events/test_hints.py expirer/test_inbox.py \
  seatmap/test_cache.py seatmap/test_seat_cache.py

.PHONY: help run test faults campaign bench newest chart monitoring image compose e2e up down check workflows fmt docs lock clean

help: ## lists the verbs
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: $(BIN)/.installed ## runs API, expirer, their servers and demo data until Ctrl-C; ROWLOCK_PORT (3000)
	@exec $(BIN)/python -m dev.run

test: $(BIN)/.installed ## runs the tests on real servers; ARGS="tests/ledger/test_races.py -k hot" selects some
	@dev/install-packages $(PACKAGES)
	@$(BIN)/python -m pytest $(ARGS)

faults: $(BIN)/.installed ## runs the long tests of faults and punctuality, which need an idle machine
	@dev/install-packages $(PACKAGES) gcc libc6-dev
	@$(BIN)/python -m pytest -n 0 -p tests.conftest $(or $(ARGS),load/tests)
	@$(if $(ARGS),,ROWLOCK_TEST_STORM_SECONDS=60 $(BIN)/python -m pytest -n 0 tests/events/test_sequencer.py -k storm)

campaign: $(BIN)/.installed ## runs random operations under random faults and checks every answer; SECONDS=90 SEED=1 FAULTS=all ARGS=
	@dev/install-packages $(PACKAGES) gcc libc6-dev
	@$(BIN)/python -m load.campaign --seconds $(or $(SECONDS),90) --seed $(or $(SEED),1) --faults $(or $(FAULTS),all) $(ARGS)

bench: $(BIN)/.installed ## measures holds beside this machine's limits, for a quarter of an hour; ROUNDS=3 SECONDS=6 SCENARIO=uniform
	@dev/install-packages $(PACKAGES) gcc libc6-dev
	@$(BIN)/python -m load.bench --rounds $(or $(ROUNDS),3) --seconds $(or $(SECONDS),6) --scenario $(or $(SCENARIO),uniform)

newest: $(BIN)/.installed ## tests broker, cache and pooler on the newest servers, in containers; needs Docker
	@dev/need-docker
	@$(if $(ARGS),,docker build --quiet --tag rowlock-test-pgbouncer - < tests/stage/pgbouncer.Dockerfile > /dev/null)
	@$(if $(ARGS),,ROWLOCK_TEST_PGBOUNCER_IMAGE=rowlock-test-pgbouncer $(BIN)/python -m pytest -n 0 tests/schema/test_pgbouncer.py)
	@ROWLOCK_TEST_SERVERS=compose $(BIN)/python -m pytest -n 0 $(or $(ARGS),$(addprefix tests/,$(NEWEST)))

chart: $(BIN)/.installed ## tests the chart without a cluster; needs helm, kubeconform and Go
	@for program in helm kubeconform; do command -v $$program >/dev/null || { echo "rowlock: $$program is missing: install it" >&2; exit 1; }; done
	@helm lint --strict chart
	@dev/chart-score
	@$(BIN)/python -m pytest tests/chart $(ARGS)

monitoring: $(BIN)/.installed ## tests dashboards and alerts with promtool and a real Prometheus
	@dev/install-packages $(PACKAGES) prometheus
	@$(BIN)/python -m pytest -n 0 tests/monitoring $(ARGS)

image: $(BIN)/.installed ## builds the image and tests it and compose.yml; needs Docker
	@dev/need-docker
	@$(BIN)/python -m pytest -n 0 --timeout 900 tests/image $(ARGS)

compose: ## starts the whole product in containers, until docker compose down; needs Docker
	@dev/need-docker
	@dev/write-env
	@docker compose up --build --wait
	@echo "rowlock: http://$$(docker compose port proxy 8000)/api-docs"

e2e: $(BIN)/.installed ## tests everything in a kind cluster, with faults; needs Docker, kind, kubectl and helm
	@dev/need-docker
	@dev/install-packages prometheus
	@$(BIN)/python -m pytest -n 0 --timeout 900 tests/cluster $(ARGS)

up: ## deploys this checkout to a kind cluster, or updates it; needs Docker, kind, kubectl and helm
	@k8s/up

down: ## deletes the cluster of make up
	@k8s/down

check: $(BIN)/.installed ## checks formatting, lint, types, generated files and English
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m dev.settings_table --check
	@$(BIN)/python -m dev.metrics_table --check
	@$(BIN)/python -m dev.monitoring --check
	@$(BIN)/python -m dev.chart_docs --check
	@$(BIN)/python -m load.campaign.page --check
	@$(BIN)/python -m load.bench.page --check
	@$(BIN)/python -m dev.prose

workflows: $(BIN)/.installed ## checks the GitHub workflows, skaffold.yaml, the chart's README and clients of the OpenAPI document; needs Go and npm
	@dev/chart-readme --check
	@dev/lint-workflows
	@dev/lint-skaffold
	@dev/install-packages $(PACKAGES)
	@dev/check-document

fmt: $(BIN)/.installed ## formats the code and applies lint's fixes
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

docs: $(BIN)/.installed ## generates tables, figures, the chart's README and schema, dashboards and alerts; needs Go
	@$(BIN)/python -m dev.settings_table
	@$(BIN)/python -m dev.metrics_table
	@$(BIN)/python -m dev.monitoring
	@$(BIN)/python -m dev.chart_docs
	@$(BIN)/python -m load.campaign.page
	@$(BIN)/python -m load.bench.page
	@dev/chart-readme

lock: $(BIN)/.installed ## pins the newest compatible dependencies, with hashes
	@$(COMPILE) --upgrade --extra dev --output-file requirements-dev.lock
	@$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock

clean: ## deletes the virtual environment, caches and the data of make run
	@$${PYTHON:-python3} -m dev.data_folder
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/.installed: requirements-dev.lock dev/set-up
	@dev/set-up

# The verbs; `make` alone lists them. Each sets up what it needs: see dev/set-up.
.DEFAULT_GOAL := help
SHELL := /bin/sh
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
# Without the registry's address, and for every Python and platform that the project supports.
COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header pyproject.toml

# The tests run on the oldest PostgreSQL of these that the system has, and on the newest, which is a Python package.
SERVERS := 'postgresql-15|postgresql-16|postgresql-17' redis-server rabbitmq-server

# The tests that use RabbitMQ and Redis.
NEWEST := events/test_topology.py expirer/test_relay.py events/test_hints.py expirer/test_inbox.py \
  seatmap/test_cache.py seatmap/test_seat_cache.py

.PHONY: help run test faults newest chart monitoring image compose e2e up down check workflows fmt docs lock clean

help: ## lists these verbs
	@sed -n 's/^\([a-z0-9]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

run: $(BIN)/.installed ## API, expirer and demo data on a PostgreSQL of its own, until Ctrl-C; ROWLOCK_PORT (3000)
	@exec $(BIN)/python -m dev.run

test: $(BIN)/.installed ## every test, on real servers; ARGS="tests/ledger/test_races.py -k hot" for some
	@dev/install-packages $(SERVERS)
	@$(BIN)/python -m pytest $(ARGS)

faults: $(BIN)/.installed ## long tests of faults and punctuality, which want the machine for themselves
	@dev/install-packages $(SERVERS)
	@$(BIN)/python -m pytest -n 0 -p tests.conftest $(or $(ARGS),load/tests)
	@$(if $(ARGS),,ROWLOCK_TEST_STORM_SECONDS=60 $(BIN)/python -m pytest -n 0 tests/events/test_sequencer.py -k storm)

newest: $(BIN)/.installed ## tests of broker and cache on the newest PostgreSQL, Redis and RabbitMQ, in containers; needs Docker
	@dev/need-docker
	@ROWLOCK_TEST_SERVERS=compose $(BIN)/python -m pytest -n 0 $(or $(ARGS),$(addprefix tests/,$(NEWEST)))

chart: $(BIN)/.installed ## what helm makes of the chart, without a cluster; needs helm and kubeconform on PATH
	@for program in helm kubeconform; do command -v $$program >/dev/null || { echo "rowlock: $$program is missing: install it" >&2; exit 1; }; done
	@helm lint --strict chart
	@$(BIN)/python -m pytest tests/chart $(ARGS)

monitoring: $(BIN)/.installed ## dashboards and alerts: promtool, and a real Prometheus over a running system
	@dev/install-packages $(SERVERS) prometheus
	@$(BIN)/python -m pytest -n 0 tests/monitoring $(ARGS)

image: $(BIN)/.installed ## builds the image and tries it and compose.yml; needs Docker
	@dev/need-docker
	@$(BIN)/python -m pytest -n 0 --timeout 900 tests/image $(ARGS)

compose: ## the whole product in containers, until docker compose down; needs Docker
	@dev/need-docker
	@dev/write-env
	@docker compose up --build --wait
	@echo "rowlock: http://$$(docker compose port proxy 8000)/api-docs"

e2e: $(BIN)/.installed ## everything in a kind cluster of its own, faults included; needs Docker, kind, kubectl and helm
	@dev/need-docker
	@dev/install-packages prometheus
	@$(BIN)/python -m pytest -n 0 --timeout 900 tests/cluster $(ARGS)

up: ## Rowlock in a kind cluster, and where it is served; again: the present state; needs Docker, kind, kubectl and helm
	@k8s/up

down: ## deletes the cluster of make up
	@k8s/down

check: $(BIN)/.installed ## formatting, lint, types, and that what is generated is up to date
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m dev.settings_table --check
	@$(BIN)/python -m dev.metrics_table --check
	@$(BIN)/python -m dev.monitoring --check
	@$(BIN)/python -m dev.chart_docs --check

workflows: $(BIN)/.installed ## lints what GitHub Actions and skaffold would run; needs Go
	@dev/lint-workflows
	@dev/lint-skaffold

fmt: $(BIN)/.installed ## formats the code, and mends what lint can mend
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

docs: $(BIN)/.installed ## writes what is generated: tables, the chart's schema, dashboards and alerts
	@$(BIN)/python -m dev.settings_table
	@$(BIN)/python -m dev.metrics_table
	@$(BIN)/python -m dev.monitoring
	@$(BIN)/python -m dev.chart_docs

lock: $(BIN)/.installed ## pins the newest dependencies that fit, with hashes
	@$(COMPILE) --upgrade --extra dev --output-file requirements-dev.lock
	@$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock

clean: ## removes the virtual environment, caches, and the data of make run
	@$${PYTHON:-python3} -m dev.data_folder
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/.installed: requirements-dev.lock dev/set-up
	@dev/set-up

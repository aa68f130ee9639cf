# tocsin: make help lists what there is.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
BIN := .venv/bin
LIBRARY := streams/native/libtocsin.so
ARGS ?=
SEEDS ?= 1000
SECONDS ?= 60
export PYTHON

.PHONY: help setup demo test servers local check unit integration prove faults simulate fuzz soak bench-quick bench-recovery bench-start lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile

setup: .venv/ready $(LIBRARY) ## make .venv with the locked dependencies (PYTHON=... names the interpreter)

.venv/ready: requirements.lock pyproject.toml tools/setup.sh
	@tools/setup.sh

$(LIBRARY): hatch_build.py $(wildcard streams/native/*.zig) | .venv/ready
	@$(BIN)/python hatch_build.py

demo: setup ## real MCP servers, injected faults, live alerts; needs no Java, Docker or root (ARGS=--stay keeps it running)
	@$(BIN)/tocsin demo $(ARGS)

test: setup servers check ## every check and every test, against real Kafka and Redis
	@echo "== tests"
	@$(BIN)/python -m pytest --numprocesses=3 --dist=worksteal --durations=10 $(ARGS)
	@echo "== fuzzing"
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --discard

servers: setup ## fetch what the tests need: Apache Kafka by Maven, Redis, kcat and Java by apt
	@echo "== servers"
	@$(BIN)/python -m tests.servers

local: setup ## Kafka and Redis on their usual ports of this machine, until Ctrl-C
	@$(BIN)/python -m tests.servers --stay

check: setup ## lint, format, types and the direction of imports
	@echo "== checks"
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports
	@echo "ruff, mypy, lint-imports: clean"

unit: setup ## the tests that need no servers
	@$(BIN)/python -m pytest -m "not integration" $(ARGS)

integration: setup servers ## the tests that talk to real servers
	@$(BIN)/python -m pytest -m integration $(ARGS)

prove: setup servers ## plant known bugs and see that the tests find them
	@$(BIN)/python -m tests.prove $(ARGS)

faults: setup servers ## inject every fault into real processes and compare with an oracle (SEED=n, ARGS="--only disk")
	@$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: setup servers ## two workers, 20,000 events a second and faults for 20 minutes: does anything grow? (MINUTES=n)
	@$(BIN)/python -m tests.faults.soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

simulate: setup ## many worlds from seeds, every fault in them (SEEDS=10000), or one that is told (SEED=7)
	@$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

fuzz: setup ## any bytes into all that reads what others wrote, each for SECONDS=60
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS) $(ARGS)

bench-quick: setup servers ## catch-up throughput beside stock Faust, on one real broker
	@$(BIN)/python bench/quick.py $(ARGS)

bench-recovery: setup servers ## rebuilding local state from a changelog beside stock Faust, on one real broker
	@$(BIN)/python bench/recovery.py $(ARGS)

bench-start: setup servers ## from the start of a worker to its first decision, and tocsin --help, on one real broker
	@$(BIN)/python -m bench.start $(ARGS)

lock: setup ## resolve the dependencies anew (all; the worker's; those that build it)
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--all-extras --group dev pyproject.toml -o requirements.lock $(ARGS)
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		pyproject.toml -c requirements.lock -o requirements-worker.lock
	@$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
		--group build -c requirements.lock -o requirements-build.lock

clean: ## remove everything that make made here (the Kafka jars stay in ~/.cache/tocsin)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis tocsin-data build dist
	rm -f $(LIBRARY)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

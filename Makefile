# Each target sets up what it needs, on a bare Debian or Ubuntu too. Settings: ABACO_* (README).
ABACO := .venv/bin/abaco
PYTHON := .venv/bin/python
CODE := proto telemetry services local compose examples bench tests
BENCHES := $(wildcard bench/*.py)

# A unit test that takes this long hangs. Raise it on a machine that is much slower than most.
HANG_SECONDS ?= 240

# More than processors: tests of real servers mostly wait.
TEST_PROCESSES ?= 3

.PHONY: demo up down status compose compose-down check test fuzz faults bench format lock image engine run-setup dev-setup

demo: up image            ## start everything and walk through the quickstart
	@$(ABACO) demo

up: run-setup             ## start everything
	@$(ABACO) up

down: run-setup           ## stop everything; the data stays
	@$(ABACO) down

status: run-setup         ## what runs, and where
	@$(ABACO) status

compose: engine           ## the same in containers, with nginx before two API processes
	local/compose up -d --build

compose-down: engine      ## stop the containers; the data stays in their volumes
	local/compose down

# A test that hangs ends its process with the stacks of its threads (faulthandler_*, pyproject.toml). The
# process is not replaced: xdist 3.8 can wait for ever for a replacement.
check: dev-setup          ## format, lint, types, architecture, unit and contract tests
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy $(CODE)
	.venv/bin/lint-imports
	.venv/bin/pytest -q --numprocesses 2 --max-worker-restart 0 -o faulthandler_timeout=$(HANG_SECONDS) \
		tests/unit tests/contract

# Side by side, as most of the time each of them waits. What all of them need is made before.
test: check engine image  ## everything
	.venv/bin/python tests/support/server/images.py
	.venv/bin/pytest -q --numprocesses $(TEST_PROCESSES) --max-worker-restart 0 --dist loadscope --no-loadscope-reorder \
		--durations 15 --durations-min 1 tests/integration tests/fault tests/e2e

# The seed is printed: FUZZ_SEED=… repeats it, FUZZ_SECONDS=… is for each of the two.
FUZZ_SECONDS ?= 600
FUZZ_SEED ?= $(shell date +%s)
fuzz: dev-setup           ## damaged bytes into every decoder, then requests into the API, ten minutes each
	@echo "fuzz: FUZZ_SEED=$(FUZZ_SEED), $(FUZZ_SECONDS) seconds each"
	@ABACO_TEST_FUZZ_SECONDS=$(FUZZ_SECONDS) ABACO_TEST_FUZZ_SEED=$(FUZZ_SEED) \
		nice .venv/bin/pytest -q -o faulthandler_timeout=0 tests/unit/test_codecs_fuzz.py tests/integration/test_api_fuzz.py

# The same tests as in `make test`, each for longer and with more in flight.
faults: dev-setup engine image  ## every fault, and ten minutes of all of them at random
	ABACO_TEST_KILLS=$${ABACO_TEST_KILLS:-30} \
	ABACO_TEST_FLEET=$${ABACO_TEST_FLEET:-40} \
	ABACO_TEST_MESSAGES=$${ABACO_TEST_MESSAGES:-100} \
	PARTITION_SECONDS=$${PARTITION_SECONDS:-60} \
	ABACO_TEST_MIXER_SECONDS=$${ABACO_TEST_MIXER_SECONDS:-600} \
	ABACO_TEST_MIXER_SEED=$${ABACO_TEST_MIXER_SEED:-random} \
	.venv/bin/pytest -q -o faulthandler_timeout=0 tests/fault

bench: dev-setup engine    ## figures beside the raw parts: tables here, JSON and pictures in build/bench
	@set -e; for bench in $(BENCHES); do echo "== $$bench"; $(PYTHON) $$bench; done

format: dev-setup         ## format, and repair what the linter can
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

lock: run-setup           ## requirements/*.txt anew from the manifests
	local/lock

engine: run-setup
	@$(PYTHON) -m abaco_local.servers.container_engine

image: engine
	@$(PYTHON) examples/abaco_test/build.py

run-setup:
	@local/setup run

dev-setup:
	@local/setup dev

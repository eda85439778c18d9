PYTHON ?= python3
PORT ?= 4566
STAGE ?= dev

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export SAM_CLI_TELEMETRY := 0
unexport PYTHONPATH PYTHONHOME

# One stamp an interpreter: to ask for another PYTHON is to get a new .venv.
venv := .venv/made-with-$(notdir $(PYTHON))
typed := $(wildcard functions scripts tests bench)
tests := $(wildcard tests/unit tests/component tests/e2e)

.PHONY: run token test test-full bench deploy build clean

run: $(venv)
	@exec .venv/bin/python scripts/local_stack.py run --port $(PORT)

token: $(venv)
	@.venv/bin/python scripts/local_stack.py token

test: $(venv)
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy $(typed)
	.venv/bin/sam validate --lint
	.venv/bin/pytest --numprocesses 2 $(tests)

# As many cases as are claimed, not only a part of them.
test-full: export TALLY_TESTS := full
test-full: test

# Writes docs/benchmarks.md; 6 to 12 minutes.
bench: $(venv)
	PYTHONPATH=functions:scripts .venv/bin/python -m bench

build: $(venv)
	.venv/bin/sam build

deploy: $(venv)
	@.venv/bin/python scripts/artifact.py check $(STAGE)
	.venv/bin/sam build
	.venv/bin/sam deploy --config-env $(STAGE)

clean:
	rm -rf .venv .local .aws-sam .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find functions scripts tests bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(venv): requirements.txt functions/requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.13" if sys.version_info < (3, 11) else 0)'
	@echo "Making .venv: a minute or two, only when requirements.txt changes."
	@$(PYTHON) -m venv --clear .venv
	@.venv/bin/python -m pip install --disable-pip-version-check -q -r requirements.txt
	@touch $@

PYTHON ?= python3
PORT ?= 4566
STAGE ?= dev
CONFIRM ?= yes

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export SAM_CLI_TELEMETRY := 0
unexport PYTHONPATH PYTHONHOME

typed := $(wildcard functions scripts tests bench)
tests := $(wildcard tests/unit tests/component tests/e2e)

.PHONY: help run token test test-full bench build deploy clean packages-run packages-all

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1 - /p' Makefile

run: packages-run ## run template.yaml on this machine until Ctrl-C; PORT=4566
	@exec .venv/bin/python scripts/local_stack.py run --port="$(PORT)"

# Not `packages-run`: it must not change the .venv of a running stack.
token: ## print an access token of the running stack, with all scopes
	@test -f .venv/tally.json || { echo "There is no local stack yet: start it with make run" >&2; exit 1; }
	@.venv/bin/python scripts/local_stack.py token

test: packages-all ## lint, types, the template, and all tests
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy $(typed)
	.venv/bin/sam validate --lint
	.venv/bin/pytest --numprocesses 2 $(tests)

test-full: export TALLY_TESTS := full
test-full: test ## the same, with as many cases as are claimed

bench: packages-all ## write docs/benchmarks.md: 6 to 12 minutes
	PYTHONPATH=functions:scripts .venv/bin/python -m bench

build: packages-run ## run sam build
	.venv/bin/sam build

deploy: packages-run ## deploy to an AWS account; STAGE=dev or prod, CONFIRM=no asks nothing
	@.venv/bin/python scripts/account.py
	@.venv/bin/python scripts/artifact.py check "$(STAGE)"
	.venv/bin/sam build
	.venv/bin/sam deploy --config-env "$(STAGE)" $(if $(filter no,$(CONFIRM)),--no-confirm-changeset)

clean: ## delete .venv, the local stack's state, and all that was built
	@"$(PYTHON)" scripts/environment.py idle
	rm -rf .venv .local .aws-sam .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find functions scripts tests bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

packages-run packages-all: packages-%:
	@"$(PYTHON)" scripts/environment.py $*

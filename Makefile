PYTHON ?= python3
PORT ?= 4566
STAGE ?= dev
CONFIRM ?= yes

export PATH := $(CURDIR)/.venv/bin:$(PATH)
export SAM_CLI_TELEMETRY := 0
# Without kept bytecode, each of many processes would compile its modules again.
unexport PYTHONPATH PYTHONHOME PYTHONDONTWRITEBYTECODE

python_code := $(wildcard functions client scripts tests bench)
all_tests := $(wildcard tests/unit tests/component tests/e2e tests/browser)
# The component tests that hardly need an emulated AWS, so they are fast.
template_names := aws_rules contract contract_rules deployments docs operations permissions template
template_tests := $(patsubst %,tests/component/test_%.py,$(template_names))

.PHONY: help run token check test test-full bench contract build deploy clean
.PHONY: lint types validate quick-tests tests packages-run packages-all

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1 - /p' Makefile

run: packages-run ## run Tally on this machine until Ctrl-C, on PORT=4566 by default
	@exec .venv/bin/python scripts/local_stack.py run --port="$(PORT)"

# `token` does not depend on packages-run, which could rebuild .venv while the stack uses it.
token: ## print an access token for the running stack, with all scopes
	@test -f .venv/tally.json || { echo "There is no local stack yet: start it with make run" >&2; exit 1; }
	@.venv/bin/python scripts/local_stack.py token

check: ## run lint, types, unit tests and template tests: less than a minute
	@$(MAKE) --no-print-directory --jobs=2 lint types quick-tests

# In a new clone, the type checker needs 15 to 20 seconds. Beside it, the tests use the other core.
test: ## run everything: lint, types, sam validate, and all tests
	@$(MAKE) --no-print-directory lint
	@$(MAKE) --no-print-directory --jobs=3 types validate tests

test-full: export TALLY_TESTS := full
test-full: test ## run everything, with the large tests at full size

lint: packages-all
	.venv/bin/ruff check
	.venv/bin/ruff format --check

types: packages-all
	.venv/bin/mypy $(python_code)

validate: packages-all
	.venv/bin/sam validate --lint

quick-tests: packages-all
	.venv/bin/pytest --numprocesses 3 tests/unit $(template_tests)

# The end-to-end tests and the tests of the client often wait. So five processes fill two cores.
tests: packages-all
	.venv/bin/pytest --numprocesses 5 $(all_tests)

bench: packages-all ## run the benchmarks and write docs/benchmarks.md: about 20 minutes
	PYTHONPATH=functions:scripts .venv/bin/python -m bench

contract: packages-all ## write functions/openapi.json from openapi.yaml
	.venv/bin/python scripts/contract.py

build: packages-run ## build the functions with sam build
	.venv/bin/sam build

deploy: packages-run ## deploy to an AWS account; STAGE is dev or prod; with CONFIRM=no, do not ask
	@.venv/bin/python scripts/account.py
	@.venv/bin/python scripts/artifact.py check "$(STAGE)"
	.venv/bin/sam build
	.venv/bin/sam deploy --config-env "$(STAGE)" $(if $(filter no,$(CONFIRM)),--no-confirm-changeset)

clean: ## delete .venv, the local stack's state, and everything that was built
	@"$(PYTHON)" scripts/environment.py idle
	rm -rf .venv .local .aws-sam .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find functions client scripts tests bench -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

packages-run packages-all: packages-%:
	@"$(PYTHON)" scripts/environment.py $*

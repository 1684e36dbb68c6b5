# `make help` lists the targets. Everything is installed into .venv; nothing else on the machine is touched.

PYTHON ?= python3
VENV ?= .venv
# Test processes; JOBS=0 runs the tests in one process, as a debugger needs.
JOBS ?= 2
# Tests to run and options for pytest: make test TESTS=tests/core PYTEST_ARGS="-x -k tool"
TESTS ?=
PYTEST_ARGS ?=
# Options of the chaos test: make chaos CHAOS_ARGS="--seed 7 --compress zstd"
CHAOS_ARGS ?=

# Threads that wait for work must not spin: it costs more than half of a small machine.
export OMP_WAIT_POLICY = passive
export TOKENIZERS_PARALLELISM = false
export PIP_DISABLE_PIP_VERSION_CHECK = 1

BIN := $(VENV)/bin
EXTRAS_RUN := serve,trl,data,view
EXTRAS_DEV := $(EXTRAS_RUN),environments,ray,zstd,otel,dev
# What the benchmark of the server compares with; in an environment of its own.
FASTMCP := 4.1.2
INSTALLED_RUN := $(VENV)/.installed-run
INSTALLED_DEV := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.PHONY: help quickstart test check sandbox fuzz chaos check-environments catalogue conformance interop interop-unsloth interop-nemo-rl bench bench-serving bench-environments bench-collect bench-export constraints install install-dev clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo "  Another interpreter: make PYTHON=python3.12 <target>. One test process: make test JOBS=0."

quickstart: $(INSTALLED_RUN) ## install, then train a small policy on two environments and print what it learned
	$(BIN)/gymrail train recipes/grpo/quickstart.yaml

test: check sandbox ## run every check and every test, as continuous integration does
	GYMRAIL_FORBID_SKIPS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS) $(TESTS)

check: $(INSTALLED_DEV) ## lint, formatting and types, without running tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# The tests run model-written code in it. Nothing but the tests needs it installed for them.
sandbox: ## install bubblewrap from the system's packages where it is missing; asks for no password
	@command -v bwrap >/dev/null || { echo "Installing bubblewrap ..."; \
	    if [ "$$(id -u)" = 0 ]; then as_root=; else as_root="sudo -n"; fi; \
	    { $$as_root apt-get install -y -q bubblewrap || { $$as_root apt-get update -q && $$as_root apt-get install -y -q bubblewrap; }; } >/dev/null 2>&1; \
	    command -v bwrap >/dev/null; } || { \
	    echo "The tests of the sandbox need bubblewrap (the command bwrap), and it could not be installed here." >&2; \
	    echo "Install it with your system's packages, for example: sudo apt-get install bubblewrap" >&2; exit 1; }

fuzz: $(INSTALLED_DEV) ## hold every property against examples that no run has had, and the server against 10,000 made-up requests
	GYMRAIL_OTHER_EXAMPLES=1 GYMRAIL_FUZZ_REQUESTS=10000 $(BIN)/python -m pytest $(PYTEST_ARGS) \
	    $(or $(TESTS),$(shell grep -rlE '^from hypothesis import|schemathesis' tests --include='test_*.py'))

chaos: $(INSTALLED_DEV) ## collect 10,000 rollouts while everything is killed and breaks; none may be lost, doubled or changed
	$(BIN)/python -m tests.chaos.run $(CHAOS_ARGS)

check-environments: $(INSTALLED_DEV) ## hold every environment against its contract, a load of 200 episodes and its README's baselines
	$(BIN)/python scripts/check_environments.py

catalogue: $(INSTALLED_DEV) ## write docs/catalogue.md from the environments' manifests
	$(BIN)/python scripts/catalogue.py

conformance: $(INSTALLED_DEV) ## run the official MCP conformance suite against `gymrail serve`; npm installs it into .interop once
	$(BIN)/python -m tests.conformance.run

interop: $(INSTALLED_DEV) ## play and serve episodes with other people's software; installs it into .interop once (1-2 GB)
	GYMRAIL_INTEROP=1 $(BIN)/python -m pytest $(PYTEST_ARGS) $(or $(TESTS),tests/interop)

interop-unsloth: $(INSTALLED_DEV) ## train with Unsloth's real trainers on the CPU and compare with TRL; installs Unsloth into .interop once (2 GB)
	GYMRAIL_INTEROP=1 $(BIN)/python -m pytest $(PYTEST_ARGS) $(or $(TESTS),tests/interop/test_unsloth.py tests/interop/test_unsloth_data.py)

interop-nemo-rl: $(INSTALLED_DEV) ## hold NeMo RL's rollouts against TRL's, from a checkout NEMO_RL_SOURCE; installs what it imports once (2 GB)
	@test -n "$(NEMO_RL_SOURCE)" || { echo "Name a NeMo RL checkout: NEMO_RL_SOURCE=path/to/RL make interop-nemo-rl" >&2; exit 1; }
	GYMRAIL_INTEROP=1 GYMRAIL_FORBID_SKIPS=1 $(BIN)/python -m pytest $(PYTEST_ARGS) tests/interop/test_nemo_rl.py tests/interop/test_nemo_rl_recipes.py tests/interop/test_nemo_rl_results.py

bench: $(INSTALLED_DEV) ## measure rollouts per second, CPU and memory, as ratios to a bare loop
	$(BIN)/python benchmarks/rollouts.py

bench-serving: $(INSTALLED_DEV) .interop/fastmcp/installed-$(FASTMCP) ## measure tool calls over HTTP and MCP, beside FastAPI and FastMCP
	$(BIN)/python benchmarks/serving.py

bench-environments: $(INSTALLED_DEV) ## measure the workplace's seed, episode and memory, beside the original's where .interop has it
	$(BIN)/python benchmarks/environments.py

bench-collect: $(INSTALLED_DEV) ## measure the journal, worker processes, Ray, a million-row resume and memory while collecting
	$(BIN)/python benchmarks/collect.py

bench-export: $(INSTALLED_DEV) ## export a million rollouts to SFT and DPO: rollouts per second and memory
	$(BIN)/python benchmarks/export.py

install: $(INSTALLED_RUN) ## install what the quickstart needs
install-dev: $(INSTALLED_DEV) ## install what the tests and the benchmark need too

constraints: $(INSTALLED_DEV) ## write constraints.txt from what is installed
	VENV=$(VENV) scripts/constraints

clean: ## remove .venv, builds and caches; runs/ stays
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

NAME_ANOTHER = Name another interpreter: make PYTHON=python3.12 $(MAKECMDGOALS)

# pip is the last thing that venv puts in place, so a broken-off attempt is repeated.
$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here. $(NAME_ANOTHER)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "'$(PYTHON)' is $$($(PYTHON) --version 2>&1); Gymrail needs 3.11 or newer. $(NAME_ANOTHER)" >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)

define pip_install
	@echo "Installing $(1) into $(VENV) (1-2 GB on disk, 2-3 minutes the first time) ..."
	@start=$$(date +%s); $(BIN)/python -m pip install --quiet --editable '.[$(1)]' --constraint constraints.txt \
	    && echo "Installed in $$(( $$(date +%s) - start )) s."
	@touch $@
endef

.interop/fastmcp/installed-$(FASTMCP):
	@echo "Installing fastmcp $(FASTMCP) into .interop/fastmcp ..."
	@$(PYTHON) -m venv .interop/fastmcp
	@.interop/fastmcp/bin/python -m pip install --quiet fastmcp==$(FASTMCP) uvloop httptools
	@touch $@

$(INSTALLED_RUN): pyproject.toml constraints.txt | $(BIN)/pip
	$(call pip_install,$(EXTRAS_RUN))

$(INSTALLED_DEV): pyproject.toml constraints.txt | $(BIN)/pip
	$(call pip_install,$(EXTRAS_DEV))
	@touch $(INSTALLED_RUN)

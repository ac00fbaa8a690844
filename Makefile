# Every command of the project. Needs Python 3.11+ with venv (or uv), and make 3.81 or newer.
# .venv/.run and .venv/.dev are stamps: what has been installed once is not installed again.

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3.14 python3; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then echo $$p; break; fi; done)
UV     ?= $(shell command -v uv 2>/dev/null)
VENV   ?= .venv
PEERS  ?= .venv-bench
ARGS   ?=

PY      = $(VENV)/bin/python
LOCKED  = pyproject.toml scripts/bootstrap.sh
INSTALL = PYTHON="$(PYTHON)" UV="$(UV)" VENV="$(VENV)" sh scripts/bootstrap.sh
COMPILE = $(UV) pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes --no-header \
	--no-annotate --no-emit-index-url --no-emit-find-links $(ARGS)

.PHONY: help demo test check bench bench-peers bench-postgres fuzz soak lock clean
.NOTPARALLEL:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  Each sets up what it needs in $(VENV). ARGS passes options on: make test ARGS="-k timer"'

demo: $(VENV)/.run ## run an order saga on SQLite, crash it on purpose, resume it
	@$(PY) examples/demo.py $(ARGS)

test: $(VENV)/.dev ## run all tests, with a real PostgreSQL
	@DERECHO_REQUIRE_POSTGRES=1 $(PY) -m pytest -n 2 $(ARGS)

check: $(VENV)/.dev ## style, types, import direction, house rules
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy --strict $(wildcard src tests examples benchmarks)
	@$(VENV)/bin/lint-imports --no-logo
	@$(PY) -m pytest tests/house $(ARGS)

bench: $(PEERS)/.bench ## measure throughput, latency and what idling costs, on all stores
	@$(PEERS)/bin/python -m benchmarks $(ARGS)

bench-peers: $(PEERS)/.bench ## the same, with DBOS Transact beside it
	@$(PEERS)/bin/python -m benchmarks --peers $(ARGS)

bench-postgres: $(PEERS)/.bench ## what an activity asks of PostgreSQL, and two engine processes on it
	@$(PEERS)/bin/python -m benchmarks --peers --stores postgres --only P1,P2 $(ARGS)

fuzz: $(VENV)/.dev ## the property tests on 2,000 random programs
	@DERECHO_FUZZ=2000 $(PY) -m pytest -n 2 --timeout=0 tests/properties $(ARGS)

soak: $(VENV)/.dev ## the proofs at length: every crash point, mutation and seeded bug, 100,000 random programs; takes hours
	@DERECHO_BUGS=all DERECHO_CRASHES=all DERECHO_MATRIX=1 DERECHO_EVICTIONS=100000 $(PY) -m pytest -n 2 --timeout=0 \
		tests/reference tests/seeded tests/runtime/test_many_evictions.py $(ARGS)
	@DERECHO_FUZZ=100000 DERECHO_SEEDS=150000 $(PY) -m pytest -n 2 --timeout=0 tests/properties tests/simulation $(ARGS)

lock: ## renew requirements/*.txt; ARGS=--upgrade takes newer versions
	@test -n "$(UV)" || { echo 'make lock needs uv: python3 -m pip install uv'; exit 1; }
	@cd requirements && $(COMPILE) dev.in -o dev.txt
	@cd requirements && $(COMPILE) -c dev.txt run.in -o run.txt
	@cd requirements && $(COMPILE) -c dev.txt bench.in -o bench.txt

clean: ## remove the environment, build results and caches
	@rm -rf $(VENV) $(PEERS) benchmarks/results dist build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find src tests examples benchmarks scripts -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

$(VENV)/.run: requirements/run.txt $(LOCKED)
	@REQ=$< $(INSTALL) && touch $@

# The other locks contain everything in run.txt, at the same versions.
$(VENV)/.dev: requirements/dev.txt $(LOCKED)
	@REQ=$< $(INSTALL) && touch $@ $(VENV)/.run

$(PEERS)/.bench: VENV = $(PEERS)
$(PEERS)/.bench: requirements/bench.txt $(LOCKED)
	@REQ=$< $(INSTALL) && touch $@

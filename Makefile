# mfad: `make run` starts the product, `make test` proves it. Both install what they need, or name what is missing.
PYTHON ?= /usr/bin/python3
VENV := .venv
BIN := $(VENV)/bin
MODULE := pam_mfa/module
# A file's tests stay together; three at a time, because most of them wait for another program.
PYTEST_ARGS ?= -n 3 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help run demo-offline test check lint types imports module unit bench soak fuzz install clean

help: ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

run: $(VENV)/run module ## Start mfad with a demo user and say what to try
	@packaging/run-demo.sh

demo-offline: $(VENV)/run module ## Play an outage: an authority, two hosts, the network cut and mended (root, a minute)
	@packaging/prerequisites.sh demo
	@packaging/demo-offline.sh

test: $(VENV)/test check unit ## Everything that must hold before a change lands

check: $(VENV)/test lint types imports ## Linters, types, layers, the C module with warnings as errors and its analyzer
	$(MAKE) -s -C $(MODULE) all check-exports check-size analyze asan

lint: $(VENV)/test
	$(BIN)/ruff check .

types: $(VENV)/test
	$(BIN)/mypy

imports: $(VENV)/test
	$(BIN)/lint-imports

unit: $(VENV)/test module
	$(BIN)/python -m pytest $(PYTEST_ARGS)

module: ## Build pam_mfa.so
	@packaging/prerequisites.sh build
	@$(MAKE) -s -C $(MODULE) all

fuzz: $(VENV)/test ## Fuzz the module against the bytes of the daemon, the RADIUS and LDAP codecs, and LDAP sessions, five to ten minutes each
	$(MAKE) -C $(MODULE) fuzz FUZZ_SECONDS=600
	$(BIN)/python -m tests.fuzz.radius_wire_fuzz 600
	$(BIN)/python -m tests.fuzz.ldap_wire_fuzz --seconds 150
	$(BIN)/python -m tests.fuzz.ldap_session_fuzz --seconds 300

soak: $(VENV)/test module ## Races with kill -9, fifty rounds
	$(BIN)/python -m bench.race --rounds 50
	$(BIN)/python -m bench.race --rounds 50 --kill
	$(BIN)/python -m bench.race --postgresql
	$(BIN)/python -m bench.race --postgresql --kill

bench: $(VENV)/test module ## Measure the bars, each against a peer in the same run
	$(BIN)/python -m bench.spends
	$(BIN)/python -m bench.login
	$(BIN)/python -m bench.scale
	$(BIN)/python -m bench.radius_codec
	$(BIN)/python -m bench.ldap_codec
	$(BIN)/python -m bench.radius_logins
	$(BIN)/python -m bench.radius_wire
	$(BIN)/python -m bench.radius_workers
	$(BIN)/python -m bench.radius_freeradius
	$(BIN)/python -m bench.radius_radsec
	$(BIN)/python -m bench.ldap_operations
	$(BIN)/python -m bench.ldap_tls
	$(BIN)/python -m bench.ldap_workers
	$(BIN)/python -m bench.ldap_memory
	$(BIN)/python -m bench.authority_login
	$(BIN)/python -m bench.offline_outage
	$(BIN)/python -m bench.sync_scale

install: module ## Install the PAM module (DESTDIR=, PAMDIR=)
	$(MAKE) -C $(MODULE) install

$(VENV)/run: pyproject.toml
	@packaging/prerequisites.sh build
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e .
	@touch $@

$(VENV)/test: pyproject.toml
	@packaging/prerequisites.sh test
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/run

clean: ## Remove what was built (not var/)
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	$(MAKE) -C $(MODULE) clean

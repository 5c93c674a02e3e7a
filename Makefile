.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.PHONY: help install demo test long test-fast check figures trace faults cluster bench docs man audit constraints requirements dist dist-check sbom pythons clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Empty: the simulated OpenStack. "real": Keystone, Nova, Cinder, Glance and Neutron themselves.
OPENSTACK ?=
# More for pytest, for instance ARGS='-k journal -x'.
ARGS ?=
PYTHONS ?= python3.12 python3.13
DIST ?= dist

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed  ## the virtual environment, with pinned versions

# The stamp is older than what it was made from: pip brings the environment up to date, it is not made anew.
$(VENV)/.installed: pyproject.toml constraints.txt
	@echo "Installing into $(VENV): this may take two minutes the first time."
	@PYTHON="$(PYTHON)" .ci/venv "$(VENV)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev,bench]'
	@touch $@

demo: install  ## everything on this machine, for half a minute (ARGS=--stay: until Ctrl-C; OPENSTACK=real: a real cloud)
	$(BIN)/ecs-worker demo $(if $(OPENSTACK),--openstack $(OPENSTACK)) $(ARGS)

# The quick tests mostly wait, for timers, brokers and clouds of their own: several at a time, however few the cores.
QUICKLY := -n 4 --dist worksteal

# One process less than the quick ones have: the real control plane's tests run beside them.
test: install  ## all tests: those of the real control plane beside the others
	.ci/test $(BIN) -n 3 --dist worksteal $(ARGS)

long: install  ## the long forms of some of them, which make test leaves out
	ECS_TEST_LONG=1 .ci/test $(BIN) -n 3 --dist worksteal $(ARGS)

test-fast: install  ## two to four minutes: no real OpenStack, and nothing that is waited for long
	$(BIN)/pytest $(QUICKLY) -m "not openstack and not slow and not long" $(ARGS)

check: install  ## style, types, layers: seconds
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

figures: install  ## size, names and layout of the source, against their targets (ARGS='--list workers/amqp')
	$(BIN)/python -m tests.figures $(ARGS)

faults: install  ## minutes of random kills and restarts under load, with a table (ARGS='--minutes 5')
	$(BIN)/python -m tests.faults $(ARGS)

cluster: install  ## minutes of faults of a cluster of three brokers, RabbitMQ 3 and 4, as root (ARGS='--minutes 5 --rabbitmq 4')
	$(BIN)/python -m tests.cluster $(ARGS)

bench: install  ## speed, beside a bare client and Celery, with its aims (ARGS=--quick)
	$(BIN)/python -m tests.bench $(ARGS)

trace: install  ## the way of three messages through the worker, counted (ARGS=--list shows it)
	$(BIN)/python -m tests.trace $(ARGS)

docs: install  ## write the pages anew that are made of what goes over the wire, of a trace, and of what commands print
	ECS_WRITE_DOCS=1 $(BIN)/pytest -q tests/unit/test_stability.py tests/integration/test_operations_page.py tests/integration/test_one_message_page.py \
		tests/examples/test_pages.py \
		tests/integration/test_simulated_openstack.py tests/integration/test_http_page.py \
		tests/integration/test_quickstart.py tests/integration/test_backup_page.py tests/integration/test_task_pages.py \
		tests/browser/test_console.py::test_the_pictures_of_the_docs_are_there_and_small \
		"tests/openstack/test_gateway_document.py::test_the_documents_requests_and_their_answers[simulated]"
	ECS_WRITE_DOCS=1 $(BIN)/pytest -q tests/unit/test_translations.py  # what the others have written

man: install  ## the manual pages, in build/man (the wheel installs them under share/man)
	$(BIN)/python -c 'import pathlib, workers.cli.man as man; man.write_pages(pathlib.Path("build/man"), pathlib.Path("ecs_client/VERSION").read_text().strip())'

# Strict: a version that the database does not know was not audited, and that is no success.
audit: install  ## known vulnerabilities of the pinned versions (asks the Python advisory database; fails where it cannot)
	$(BIN)/pip-audit --strict --requirement constraints.txt --disable-pip --no-deps $(ARGS)

constraints:  ## resolve the newest versions anew and pin them
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	PYTHON="$(PYTHON)" .ci/venv "$$folder/venv"; \
	"$$folder/venv/bin/pip" install --quiet --editable '.[dev,bench]'; \
	{ sed '/^[^#]/d' constraints.txt; "$$folder/venv/bin/pip" freeze --all --exclude-editable --exclude pip; } > "$$folder/constraints"; \
	cp "$$folder/constraints" constraints.txt
	$(MAKE) requirements

# What a machine installs that has nothing but pip: pip install --require-hashes -r requirements.txt
requirements: install  ## pin what runs by version and hash, for Python 3.11 and newer
	{ sed '/^[^#]/d' requirements.txt; $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
		--constraint constraints.txt pyproject.toml; } > requirements.txt.new
	mv requirements.txt.new requirements.txt

# ECS_PROJECT_URL: the project's page, for the links of the wheel's README (setup.py).
dist: install  ## the wheels of ecs-worker, its client and its demo, and the source distribution, into dist/
	for project in ". --sdist --wheel" "./ecs_client --wheel" "./sandbox --wheel"; do \
		$(BIN)/uv build --quiet --no-build-isolation --python $(BIN)/python --out-dir $(DIST) $$project; done

# In an environment of its own, as a packager would.
dist-check: dist  ## make check and the unit tests, in the unpacked source distribution
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	tar -xzf $(DIST)/ecs_worker-$$(cat ecs_client/VERSION).tar.gz -C "$$folder"; \
	cd "$$folder"/ecs_worker-*; $(MAKE) check; .venv/bin/pytest -q -n 2 tests/unit $(ARGS)

sbom: install  ## the software bill of materials (CycloneDX) of what requirements.txt installs, into dist/
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; mkdir -p $(DIST); \
	$(BIN)/uv venv --quiet --python $(BIN)/python "$$folder/venv"; \
	$(BIN)/uv pip install --quiet --python "$$folder/venv" --require-hashes --requirement requirements.txt; \
	sed "s/^dynamic = .*/version = \"$$(cat ecs_client/VERSION)\"/" pyproject.toml > "$$folder/pyproject.toml"; \
	$(BIN)/cyclonedx-py environment --pyproject "$$folder/pyproject.toml" --output-reproducible \
		--output-file $(DIST)/ecs-worker.cdx.json "$$folder/venv"

# PYTHONS: the interpreters to try; one that is not there is an error.
pythons: install  ## the unit tests with other versions of Python (PYTHONS='python3.12 python3.13')
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	for python in $(PYTHONS); do \
		echo "== $$("$$python" --version)"; \
		"$$python" -m venv --clear "$$folder"; \
		$(BIN)/uv pip install --quiet --python "$$folder" --constraint constraints.txt --editable '.[dev,bench]'; \
		"$$folder/bin/python" -m pytest -q -n 2 -p no:cacheprovider $(or $(ARGS),tests/unit); done

clean:  ## remove the virtual environment, caches and build products
	rm -rf $(VENV) build dist ./*.egg-info ecs_client/build ecs_client/*.egg-info sandbox/build sandbox/*.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

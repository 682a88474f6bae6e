# `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# The extra `fast` needs a compiler; the server also runs without it
pip_install = $(PIP) --editable '.$(1)' 2>$(VENV)/pip.log || { \
	echo "Can't build the HTTP parser in C (see $(VENV)/pip.log): installing without it"; \
	$(PIP) --editable '.$(2)'; }
T ?= tests
# Number of processes; for a single file, a second one would not save time
N ?= $(if $(filter tests,$(T)),2,0)
m ?= change
comma := ,
SPEC ?= ../shared/spec/client-server.json

# The versions that are installed, also by tests/clients/install; the second is for what builds them
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt

# Without bytecode files, each server and command that a test starts would compile all of app/
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install run test check lint fmt types migrations spec routes wording clients screenshots federation outage soak dist deb deb-test first-server wheel update fuzz courses faults bench traffic migration schema example docs migrate clean

help:  ## list the targets
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: $(BIN)/homebody  ## create .venv with the server in it

$(BIN)/homebody: setup.cfg pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing homebody and its dependencies into $(VENV): this takes half a minute"
	@$(call pip_install,[fast])
	@touch $@

$(VENV)/.dev: setup.cfg pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing homebody and its development tools into $(VENV): this takes a minute"
	@$(call pip_install,[dev$(comma)fast],[dev])
	@touch $@ $(BIN)/homebody

$(BIN)/pip:
	@echo "Creating a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "homebody needs Python 3.11 or newer; PYTHON=… names another one"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "Python has no venv module; Debian: apt install python3-venv"; exit 1; }

run: install  ## serve on http://localhost:8008 (installs and migrates first)
	$(BIN)/homebody serve

test: $(VENV)/.dev  ## run the tests, T=tests/core/sync/test_sync.py for some of them
	$(BIN)/python -m pytest -m "not clients and not federation and not big and not wheel and not soak and not debian" -n $(N) --dist worksteal $(T)

check: lint types migrations spec wording test  ## all checks that a commit must pass

lint: $(VENV)/.dev  ## check the code with ruff, and its format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(VENV)/.dev  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.dev  ## check the types with mypy --strict
	$(BIN)/mypy

migrations: $(VENV)/.dev  ## check that models, migrations and schema.sql agree
	$(BIN)/python -m tests.tools.next_migration --check
	$(BIN)/python -m tests.tools.schema --check

routes: $(BIN)/homebody  ## print all routes: who may use them, their rate limits and specification anchors
	$(BIN)/python -m tests.tools.routes

spec: $(BIN)/homebody  ## show which view serves which operation of the specification
	$(BIN)/python -m tests.tools.spec_index

wording: $(BIN)/homebody  ## find phrases to avoid in docstrings, comments, messages and documents
	$(BIN)/python -m tests.tools.wording $(W)

clients: $(VENV)/.dev  ## test with real clients (installs what they need)
	bash tests/clients/install $(BIN)/python
	$(BIN)/python -m pytest -m clients

screenshots: $(VENV)/.dev  ## take screenshots of pages for docs/images (installs what make clients needs)
	bash tests/clients/install $(BIN)/python
	$(BIN)/python -m tests.tools.screenshots

federation: $(VENV)/.dev  ## test with a real Synapse (installs it, and what make clients needs)
	bash tests/clients/install $(BIN)/python
	bash tests/federation/install $(BIN)/python
	$(BIN)/python -m pytest -m federation tests/federation

outage: $(VENV)/.dev  ## test how homebody and a real Synapse agree after ten minutes apart
	bash tests/federation/install $(BIN)/python
	HOMEBODY_TEST_OUTAGE_S=600 $(BIN)/python -m pytest -m federation tests/federation/test_outages.py

soak: $(VENV)/.dev  ## run three servers with random faults for an hour (SOAK_MINUTES=10), and compare them
	$(BIN)/python -m pytest -s -m soak tests/soak

dist: $(VENV)/.dev  ## build the wheel and the sdist into dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist >$(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	ls dist

deb: dist  ## build a package for this release of Debian into dist/ (needs dpkg-deb and python3-venv)
	sh packaging/debian/build /usr/bin/python3 dist/homebody-*.whl constraints.txt dist
	ls dist

deb-test: deb  ## install it in an empty Debian, and build and start the container, as root (installs what they need)
	bash tests/packaging/install
	$(BIN)/python -m pytest -m debian tests/packaging

first-server: deb  ## follow docs/first-server.md in an empty Debian, as root, and write its transcript
	bash tests/packaging/install
	$(BIN)/python -m tests.tools.first_server dist/homebody_*.deb

wheel: dist  ## install both into empty environments, and test what they can do
	$(BIN)/python -m pytest -m wheel tests/wheel

update:  ## renew constraints.txt: the newest versions of everything (needs a compiler)
	rm -rf build/update && $(PYTHON) -m venv build/update
	env -u PIP_CONSTRAINT -u PIP_BUILD_CONSTRAINT build/update/bin/python -m pip install --quiet \
		--disable-pip-version-check --upgrade setuptools --editable '.[dev,fast,clients,docs]'
	{ echo '# The versions that the Makefile and CI install; make update renews them'; \
		build/update/bin/python -m pip freeze --all --exclude-editable --exclude pip; } >constraints.txt
	rm -rf build/update

fuzz: $(VENV)/.dev  ## half an hour of random values, and requests by schemathesis (SPEC=client-server.json or server-server.json)
	timeout 600 $(BIN)/python -m pytest -n 2 --timeout=500 --hypothesis-profile=big tests/fuzz
	if $(BIN)/python -m pip install --quiet --only-binary atheris --editable '.[fuzz]'; \
	then $(BIN)/python -m tests.fuzz.by_coverage 60; fi
	$(BIN)/python -m tests.tools.fuzz_by_schema $(SPEC) --examples 25 --seconds 1500

courses: $(VENV)/.dev  ## 1,000 random sequences of events, compared with what /sync returns (15 minutes)
	$(BIN)/python -m pytest --timeout=3000 --hypothesis-profile=courses tests/fuzz/test_course_of_sync.py

faults: $(VENV)/.dev  ## kills, full and damaged disks, hostile clients, at full size (as root, ten minutes)
	$(BIN)/python -m pytest -m "" tests/faults tests/faults_clients

bench: $(VENV)/.dev  ## measure what grows with history; BENCH=--small, or sizes as in BENCH=--help
	$(BIN)/python -m tests.bench $(BENCH)

traffic: $(VENV)/.dev  ## an hour of mixed traffic in a few minutes, TRAFFIC="--minutes 10 --users 8 --json"
	$(BIN)/python -m tests.bench.traffic $(TRAFFIC)

migration: $(VENV)/.dev  ## write the next migration from the changes in the models, m="what changed"
	$(BIN)/python -m tests.tools.next_migration "$(m)"
	$(BIN)/python -m tests.tools.schema

schema: $(VENV)/.dev  ## update alembic/schema.sql after a migration was edited
	$(BIN)/python -m tests.tools.schema

example: $(BIN)/homebody  ## update docs/homebody.example.toml and docs/configuration.md after a setting was changed
	$(BIN)/python -c 'from homebody.config import settings; print(settings.example(), end="")' >$(VENV)/example.toml
	mv $(VENV)/example.toml docs/homebody.example.toml
	$(BIN)/python -m tests.tools.settings_page

docs: $(VENV)/.docs  ## build the site of the documentation in build/site, and check its links
	$(BIN)/python -m tests.tools.site

$(VENV)/.docs: setup.cfg constraints.txt | $(BIN)/homebody
	@$(PIP) --editable '.[docs]'
	@touch $@ $(BIN)/homebody

migrate: install  ## bring the database up to date
	$(BIN)/alembic -c alembic/alembic.ini upgrade head

clean:  ## remove everything that was installed or built, but not the data
	rm -rf $(VENV) build dist app/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find app tests alembic -name __pycache__ -type d -exec rm -rf {} +

# Needs Python 3.10 to 3.14, GNU make and a package index that pip can reach; installs everything else into .venv/.
PYTHON ?= python3
VENV := .venv
comma := ,
# The oldest Airflow has no Python 3.14.
AIRFLOWS := airflow $(shell $(PYTHON) -c 'import sys; print("airflow-floor" if sys.version_info < (3, 14) else "")' 2>/dev/null)
ENVS := core $(AIRFLOWS) prefect prefect-floor
NEWEST := core airflow prefect

# Airflow 3.3 and Prefect 3.8 exclude each other, so each has its environment.
extras-core := server,postgres,otel
extras-airflow := airflow,server,postgres
extras-airflow-floor := $(extras-airflow)
extras-prefect := prefect,server,postgres
extras-prefect-floor := $(extras-prefect)
extras-scale := $(extras-airflow)
group-core := dev-core
group-airflow := dev-browser
group-airflow-floor := dev-airflow
group-prefect := dev
group-prefect-floor := dev
group-scale := dev-scale

CORE := $(VENV)/core/bin
AIRFLOW := $(VENV)/airflow/bin
AIRFLOW_FLOOR := $(VENV)/airflow-floor/bin
PREFECT := $(VENV)/prefect/bin
PREFECT_FLOOR := $(VENV)/prefect-floor/bin
PIP_INSTALL = $(@D)/bin/python -m pip --quiet --disable-pip-version-check install --constraint $<

unexport PYTHONPATH

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## show this list
	@sed -n 's/^\([a-z][a-z0-9-]*\):[^#]*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r name text; do \
		printf '  make %-20s %s\n' "$$name" "$$text"; done

.PHONY: demo
demo: $(VENV)/airflow/installed $(VENV)/prefect/installed ## run the main job on a real Airflow and a real Prefect
	@$(PYTHON) scripts/demo.py --airflow $(VENV)/airflow --prefect $(VENV)/prefect

# Environments ---------------------------------------------------------------------------------------------------

.PHONY: install
install: $(ENVS:%=$(VENV)/%/installed) ## make the environments that the tests use (make -j2 install: two at a time)

# Written anew only when the version changes, so that another PYTHON makes the environments anew, and nothing else does.
.PHONY: FORCE
$(VENV)/python-version: FORCE
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null) || version=; \
	case "$$version" in \
	3.10.*|3.11.*|3.12.*|3.13.*|3.14.*) ;; \
	*) echo "smsverify needs Python 3.10 to 3.14, but '$(PYTHON)' is $${version:-not a Python that runs}." >&2; \
	   echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1 ;; \
	esac; \
	mkdir -p $(VENV); [ "$$version" = "$$(cat $@ 2>/dev/null)" ] || echo "$$version" > $@

# pip compiles to bytecode while installing, whatever PYTHONDONTWRITEBYTECODE says: importing Airflow takes more
# than twice as long without. The pinned pip comes first, because older ones know no dependency groups.
$(VENV)/%/installed: constraints/%.txt pyproject.toml $(VENV)/python-version
	@echo "==> $(@D): installing smsverify[$(extras-$*)] and the development tools, as pinned in $< (a minute or two)"
	@$(PYTHON) -m venv $(if $(filter %/python-version,$?),--clear) $(@D)
	@$(PIP_INSTALL) pip hatchling
	@$(PIP_INSTALL) --no-build-isolation --editable '.[$(extras-$*)]' --group $(group-$*)
	@touch $@

# Tests ----------------------------------------------------------------------------------------------------------

# Most tests wait more than they compute, so several run at a time. Those of a file stay together where the files
# need much that is made once: those of Airflow share one database, where the Dags of two files have other names.
WORKERS ?= 4

# The modules of tests/provider that run on the oldest Airflow too.
FLOOR := real_stack versions

# The tests that are marked as slow take a real Airflow or Prefect, PostgreSQL, or several seconds, or are about what
# seldom happens.
WITH_SLOW := -m "slow or not slow"
SELECTION := -m "not slow"

.PHONY: test test-core test-airflow test-airflow-floor test-prefect test-prefect-floor
test: ## test everything with Airflow 3.3 and Prefect 3.8, without what is slow (PYTEST_ADDOPTS adds options)
	@$(MAKE) --no-print-directory -j2 $(NEWEST:%=$(VENV)/%/installed)
	@$(MAKE) --no-print-directory $(NEWEST:%=test-%)

.PHONY: test-all
test-all: SELECTION := $(WITH_SLOW)
test-all: $(ENVS:%=test-%) ## run all tests except tests/e2e, on the oldest versions and the real stacks too

test-core: $(VENV)/core/installed ## test the core and the simulator alone
	$(CORE)/python -m pytest $(SELECTION) tests/core --numprocesses $(WORKERS) --dist worksteal

test-airflow: $(VENV)/airflow/installed ## test the Airflow wing with Airflow 3.3, and the example Dags
	$(AIRFLOW)/python -m pytest $(SELECTION) tests/provider --numprocesses $(WORKERS) --dist loadfile

# What an older Airflow could do otherwise: its own names, the triggerer, a kill.
test-airflow-floor: $(VENV)/airflow-floor/installed ## test the Airflow wing on the oldest Airflow we support
	$(AIRFLOW_FLOOR)/python -m pytest $(addprefix tests/provider/test_,$(addsuffix .py,$(FLOOR)))

# Each worker starts a Prefect server, which takes longer than most tests.
test-prefect test-prefect-floor: WORKERS = 2

test-prefect: $(VENV)/prefect/installed ## test the Prefect wing with Prefect 3.8
	$(PREFECT)/python -m pytest $(SELECTION) tests/prefect_tasks --numprocesses $(WORKERS) --dist loadfile

test-prefect-floor: $(VENV)/prefect-floor/installed ## test the Prefect wing with the oldest Prefect we support
	$(PREFECT_FLOOR)/python -m pytest $(SELECTION) tests/prefect_tasks --numprocesses $(WORKERS) --dist loadfile

.PHONY: matrix
matrix: $(VENV)/tools/installed ## test more versions of Airflow, Prefect and Python, and list them in docs/reference/tested.md (ONLY='Airflow 3.2' picks some; half an hour)
	$(PYTHON) scripts/matrix.py --uv $(VENV)/tools/bin/uv --only '$(ONLY)'

.PHONY: e2e
e2e: $(VENV)/core/installed $(VENV)/airflow/installed $(VENV)/prefect/installed ## run the demo, every way in which tasks and flows can end, many accounts, SMS that start Dags and flows, and rentals kept, on the real stacks (an hour)
	$(CORE)/python -m pytest tests/e2e

# Debian's packages of what the hosts run are installed where they are missing.
.PHONY: e2e-scale
e2e-scale: $(VENV)/core/installed $(VENV)/scale/installed $(VENV)/prefect/installed ## verify 300 accounts with both wings on ten hosts, with kills, a partition and a wrong clock (half an hour; needs root)
	scripts/install_scale.sh
	$(CORE)/python benchmarks/scale.py $(or $(SCALE),--write)

# All modules of tests that do more if SMSVERIFY_SOAK is set.
SOAKED = $(sort $(shell grep -rl SMSVERIFY_SOAK --include='test_*.py' tests/core))

.PHONY: soak
soak: $(VENV)/core/installed ## test the money for long: random faults and deaths, 200 purchases by killed processes, renewals, attempts for 200 accounts, and callbacks to a killed receiver (an hour)
	SMSVERIFY_SOAK=1 $(CORE)/python -m pytest $(SOAKED) --timeout 7200

.PHONY: bench bench-imports bench-budget bench-triggers bench-waiting bench-airflow bench-store bench-overview
bench: bench-imports bench-budget bench-triggers bench-waiting bench-airflow bench-overview bench-store ## measure all that is promised, and write the tables in docs/ (two hours, on an idle machine)

bench-imports: $(VENV)/airflow/installed ## measure what importing the operators adds to importing airflow.sdk
	$(AIRFLOW)/python benchmarks/imports.py

bench-budget: $(VENV)/core/installed ## measure how much of the limit 8 processes use together
	$(CORE)/python benchmarks/budget.py

bench-triggers: $(VENV)/airflow/installed ## measure what 1,000 waits cost Airflow's triggerer
	$(AIRFLOW)/python benchmarks/triggers.py

bench-waiting: $(VENV)/core/installed ## measure ways to wait side by side (BENCH=--quick for a few minutes)
	$(CORE)/python benchmarks/waiting.py $(or $(BENCH),--write)

bench-store: $(VENV)/core/installed ## measure what the store costs after 1,000,000 orders, and with 10 to 10,000 waits (25 minutes)
	$(CORE)/python benchmarks/store.py --write

bench-overview: $(VENV)/core/installed ## measure how long an overview takes with 100,000 orders
	$(CORE)/python benchmarks/overview.py

bench-airflow: $(VENV)/core/installed $(VENV)/airflow/installed ## measure 50 codes on a real Airflow, beside HttpOperator and HttpSensor
	$(CORE)/python benchmarks/real_airflow.py --times 3 --write
	$(CORE)/python benchmarks/real_airflow.py --numbers 200 --ways task --write

# Checks ---------------------------------------------------------------------------------------------------------

.PHONY: check lint types types-core types-airflow types-prefect
check: lint types ## check format, lint and types

lint: $(VENV)/core/installed ## ruff, and its Airflow rules for what Airflow runs
	$(CORE)/ruff format --check .
	$(CORE)/ruff check .
	$(CORE)/ruff check --preview --select AIR provider example_dags

types: types-core types-airflow types-prefect ## mypy --strict, each wing in its own environment

# A cache each: they see different packages, and may run side by side.
types-core: $(VENV)/core/installed
	$(CORE)/mypy --cache-dir .mypy_cache/core core/smsverify scripts

types-airflow: $(VENV)/airflow/installed
	$(AIRFLOW)/mypy --cache-dir .mypy_cache/airflow provider/smsverify_provider example_dags

types-prefect: $(VENV)/prefect/installed
	$(PREFECT)/mypy --cache-dir .mypy_cache/prefect prefect_tasks

.PHONY: docs
docs: $(VENV)/core/installed ## build the documentation into docs/_build (a warning is an error)
	$(CORE)/sphinx-build --fail-on-warning --keep-going --quiet docs docs/_build

.PHONY: dist
dist: $(VENV)/core/installed $(VENV)/tools/installed ## build wheel and sdist into dist/, and install both into fresh environments
	$(CORE)/python scripts/check_distribution.py --uv $(VENV)/tools/bin/uv

.PHONY: pictures
pictures: $(VENV)/airflow/installed ## take the pictures of the page in Airflow anew, docs/page.png and docs/page-dark.png (two minutes, with Chromium)
	SMSVERIFY_PICTURES=docs $(AIRFLOW)/python -m pytest -m slow tests/provider/test_browser.py -k wears

.PHONY: format
format: $(VENV)/core/installed ## rewrite the code as `make check` wants it, where a tool can
	$(CORE)/ruff check --fix .
	$(CORE)/ruff format .

# Housekeeping ---------------------------------------------------------------------------------------------------

$(VENV)/tools/installed: $(VENV)/python-version
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip --quiet --disable-pip-version-check install 'uv>=0.9'
	@touch $@

# One file for Python 3.10 to 3.14, by environment markers. An .in file beside it narrows what pyproject.toml allows.
# The oldest Airflow gets the packages of its time: it does not run with all that have come since.
compile-airflow-floor := --exclude-newer 2026-03-31 --exclude-newer-package pytest-airflow-in-a-box=2026-11-01
PINNED := $(ENVS) scale
.PHONY: constraints $(PINNED:%=constraints-%)
constraints: $(PINNED:%=constraints-%) ## pin the newest versions anew in constraints/*.txt

$(PINNED:%=constraints-%): constraints-%: $(VENV)/tools/installed
	@echo "==> constraints/$*.txt"
	@{ echo '# Written by `make constraints`.'; \
	   $(VENV)/tools/bin/uv pip compile --quiet --universal --python-version 3.10 \
	   --no-header --no-annotate --no-emit-index-url --no-emit-find-links \
	   $(compile-$*) --extra $(subst $(comma), --extra ,$(extras-$*)) --group install --group $(group-$*) \
	   pyproject.toml $(wildcard constraints/$*.in); } > $(VENV)/tools/$@.txt
	@mv $(VENV)/tools/$@.txt constraints/$*.txt

.PHONY: clean
clean: ## remove the environments and everything generated
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

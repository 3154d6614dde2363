# The commands of the project; CI and pre-commit run the same ones.
PYTHON ?= python3
VENV ?= .venv
PY = $(VENV)/bin/python
STAMP = $(VENV)/.installed
DEMO_ARGS ?= --trials 10 --samples 38400 --teacher-samples 384000 --finish-anchors
TEST_ARGS ?=

export RAY_USAGE_STATS_ENABLED ?= 0
export MLFLOW_DISABLE_TELEMETRY ?= true

.PHONY: help install demo science science-methods test test-slow test-faults lint clean

help:
	@echo "make install   create $(VENV) and install the package with everything it needs"
	@echo "make demo      a mu search on the digits, from nothing to a table of results (5 minutes on 2 cores)"
	@echo "make science   check the paper's findings on the digits (under 15 minutes)"
	@echo "make science-methods   compare all methods on the digits (half an hour)"
	@echo "make test      all tests but the slow ones; TEST_ARGS is passed on (TEST_ARGS='-m \"not cluster\"')"
	@echo "make test-slow the others, minutes each: recipes with their real networks, a sweep killed ten times"
	@echo "make test-faults   what is killed, filled up and stopped, really (under half an hour)"
	@echo "make lint      ruff and mypy"
	@echo "make clean     remove caches and build products; runs and $(VENV) stay"

install: $(STAMP)

# pip runs again only when one of the two files is newer than the last installation.
$(STAMP): pyproject.toml constraints.txt
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cluster,notebooks,import,export,serve,dev]'
	touch $@

demo: install
	$(PY) sweeps/mu_search.py $(DEMO_ARGS)

science: install
	$(PY) -m tract_ray.benchmarks.science

science-methods: install
	$(PY) -m tract_ray.benchmarks.science --part methods

# Two processes: while one waits for servers and clusters to start, the other computes.
test: install
	$(PY) -m pytest -n 2 --dist loadfile $(TEST_ARGS)

test-slow: install
	$(PY) -m pytest -m slow $(TEST_ARGS)

test-faults: install
	$(PY) -m pytest -m faults $(TEST_ARGS)

lint: install
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

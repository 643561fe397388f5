# make demo    hear it work: own environment, light run time, the sample recording
# make test    all checks, in an environment with torch
# make lint    ruff and mypy only
# make boards  the recogniser in C, built for ARM where its compilers are, run under emulation and compared
# make wheel   the package in dist/
# make clean   everything that make has made; never work/, where trainings live

PYTHON ?= python3
# On a Linux machine PyPI's torch brings CUDA along; for the smaller CPU build:
#   make test TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
TORCH ?= torch==2.13.0
SAMPLE := tests/data/sample.wav
CHECK_PYTHON := import sys; sys.version_info >= (3, 11) or sys.exit("got Python " + sys.version[:6] + ", expected 3.11 or newer: make PYTHON=python3.11")
PIP := -m pip install --quiet --disable-pip-version-check

.PHONY: demo test lint boards wheel clean

demo: .venv/.stamp
	.venv/bin/streamasr transcribe $(SAMPLE)

test: lint
	.venv-test/bin/python -m pytest

lint: .venv-test/.stamp
	.venv-test/bin/ruff check .
	.venv-test/bin/ruff format --check .
	.venv-test/bin/mypy

boards: .venv-test/.stamp
	.venv-test/bin/python -m export.c streamasr/models/en-mini build/board
	.venv-test/bin/python -m export.c.cross build/board $(SAMPLE)

wheel: .venv/.stamp
	rm -rf build dist
	.venv/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

# A new pyproject.toml means another installation; one that failed halfway has no stamp and goes on.
.venv/.stamp: pyproject.toml
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv .venv
	.venv/bin/python $(PIP) -e .
	touch $@

# torch first: what is installed after it keeps the build that is already there.
.venv-test/.stamp: pyproject.toml
	@$(PYTHON) -c '$(CHECK_PYTHON)'
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/python $(PIP) $(TORCH)
	.venv-test/bin/python $(PIP) -e '.[train,plot,bench,dev]'
	touch $@

clean:
	rm -rf .venv .venv-test build dist *.egg-info .ruff_cache .mypy_cache .pytest_cache .hypothesis
	find streamasr export recipes tests -name __pycache__ -type d -prune -exec rm -rf {} +

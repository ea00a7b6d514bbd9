# Every target sets up what it needs in .venv: a fresh clone and Python >= 3.11 are enough.

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && command -v $$p && break; done)
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help test lint train bench docs clean
.SECONDARY:

help:
	@echo "make test    lint, layers, types and tests"
	@echo "make lint    lint, layers and types only"
	@echo "make train   train a classifier on Fashion-MNIST"
	@echo "make bench   time against JAX and PyTorch"
	@echo "make docs    regenerate docs/primitives.md"
	@echo "make clean   remove .venv and build outputs"

test: lint
	@$(BIN)/python -m pytest -q -n 2

lint: .venv/.stamp-test
	@$(BIN)/ruff check .
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/pyright

train: .venv/.stamp-train
	@$(BIN)/python examples/fashion_mnist.py

bench: .venv/.stamp-peers
	@$(BIN)/python -m benchmarks

docs: .venv/.stamp-test
	@mkdir -p docs
	@$(BIN)/python -m functorch_lite.rules > docs/primitives.md.new
	@mv docs/primitives.md.new docs/primitives.md

clean:
	rm -rf .venv build dist *.egg-info

# One stamp an extra: .venv/.stamp-test stands for `pip install -e '.[test]'`, and is made again when pyproject.toml changes.
.venv/.stamp-%: pyproject.toml | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --editable '.[$*]'
	@touch $@

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer was not found; name one: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv .venv

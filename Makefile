# Two commands for a fresh clone: `make demo` and `make test`. Both make their own virtual environment.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test lint fast integration soak clean

help:
	@echo "make demo   filter the bundled clip and say where the result is"
	@echo "make test   lint, type-check and run every test (integration tests need ffmpeg and nginx with its RTMP module)"
	@echo "make soak   the tests that take minutes"
	@echo "make clean  remove what the others made"

demo: $(VENV)/.installed
	@mkdir -p out
	@$(BIN)/streamfx run examples/media/big-buck-bunny.mp4 out/demo.mp4 --filter toon --overwrite
	@echo "The result is out/demo.mp4"

test: lint fast integration

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.:plugins $(BIN)/lint-imports

fast: $(VENV)/.installed-dev
	$(BIN)/pytest

integration: $(VENV)/.installed-dev
	$(BIN)/pytest -m integration

soak: $(VENV)/.installed-dev
	$(BIN)/pytest -m soak

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/pip pyproject.toml constraints-cpu.txt
	@echo "Installing streamfx into $(VENV) ..."
	$(PIP) install -c constraints-cpu.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -c constraints-cpu.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

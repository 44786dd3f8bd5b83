# Every target sets up what it needs. `make help` lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
UV := uv==0.13.8
SOURCES := weakray ingest classify camgen detect eval serve configs bench tests

.PHONY: help install browser demo test style quality soak lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(INSTALLED) ## make .venv with the locked packages and weakray itself

# uv fetches side by side what pip fetches one by one: half a minute for ten. --no-deps: see overrides.txt.
$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(UV)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --compile-bytecode -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: install ## the whole pipeline on made data: report in runs/demo/eval/report/report.html
	$(BIN)/weakray demo
	@echo "open runs/demo/eval/report/report.html"

browser: ## Debian's Chromium, for the page's tests; without root, apt or a network they are skipped
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
		&& { apt-get -qq update; DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 \
		&& command -v chromium >/dev/null; } || echo "no Chromium, and none could be installed: the page's tests will be skipped"

test: install browser ## the tests (under 12 minutes on 2 cores)
	$(BIN)/python -m pytest -m "not soak" -n auto --maxprocesses 8 --dist loadfile

style: install ## format and mend what can be mended
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format --quiet .

quality: install ## lint, format check, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

soak: install ## what takes long: random kills, memory over 5,000 images
	$(BIN)/python -m pytest -m soak --timeout 7200

lock: ## compile requirements.lock from pyproject.toml
	$(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet $(UV)
	$(BIN)/uv pip compile --quiet --python-version 3.11 --extra dev --override overrides.txt --no-header \
		--no-emit-index-url --no-annotate --output-file requirements.lock pyproject.toml

clean: ## remove what make made, runs excepted
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache

# Pairmill: every target is one line of the `pairmill` command, in a .venv installed once from requirements.lock.
# Choices: MODEL= CLUSTER= SOURCES= SELECTION= TASK= BENCHMARK= WORKSPACE=; anything else goes in ARGS="key=value ...".

PYTHON ?= $(shell for p in python3.11 python3.12 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.installed-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)

CHOICES = $(if $(MODEL),model=$(MODEL)) $(if $(CLUSTER),cluster=$(CLUSTER)) $(if $(SOURCES),source=$(SOURCES)) \
	$(if $(SELECTION),selection=$(SELECTION)) $(if $(TASK),task=$(TASK)) $(if $(BENCHMARK),benchmark=$(BENCHMARK)) \
	$(if $(WORKSPACE),workspace=$(WORKSPACE)) $(ARGS)

.PHONY: help setup demo data pretrain finetune evaluate status report ui test test-all check format clean
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile

setup: $(STAMP) ## install everything into .venv (once)
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "pairmill needs Python 3.11 or 3.12: install one, or name it with PYTHON=..."; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@rm -f .venv/.installed-* && touch $(STAMP)

demo: $(STAMP) ## everything at laptop scale: data, training, scores
	@$(BIN)/pairmill run all $(CHOICES)
data: $(STAMP) ## sources up to tokens
	@$(BIN)/pairmill run data $(CHOICES)
pretrain: $(STAMP) ## pretrain MODEL
	@$(BIN)/pairmill run pretrain $(CHOICES)
finetune: $(STAMP) ## fine-tune MODEL for TASK
	@$(BIN)/pairmill run finetune $(CHOICES)
evaluate: $(STAMP) ## score MODEL on BENCHMARK
	@$(BIN)/pairmill run evaluate $(CHOICES)
status: $(STAMP) ## where every stage stands, and why
	@$(BIN)/pairmill status $(CHOICES)
report: $(STAMP) ## the data report, against the previous selection where there is one
	@$(BIN)/pairmill report $(CHOICES)
ui: $(STAMP) ## browse runs in MLflow on 127.0.0.1
	@$(BIN)/pairmill ui $(CHOICES)

test: $(STAMP) ## all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow"
test-all: $(STAMP) ## all tests
	$(BIN)/python -m pytest
check: $(STAMP) ## formatting, lint, types
	$(BIN)/ruff format --no-cache --check . && $(BIN)/ruff check --no-cache . && $(BIN)/mypy
format: $(STAMP) ## put the code in the project's format
	$(BIN)/ruff format . && $(BIN)/ruff check --no-cache --fix .
clean: ## remove the workspace (artifacts, runs); keeps .venv
	rm -rf workspace

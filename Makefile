# One command surface: what a person types is what CI runs.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# pip compiles on one core what it installs; here all of them do, and some packages carry files that
# are not to be compiled.
pip = $(BIN)/python -m pip --disable-pip-version-check install --quiet --no-compile
# What is installed is what requirements/ was made of, file by file, or nothing is: also no archive
# that would first be built, by tools that are in no such list. Of torch there are several builds, and
# which one an index has is the user's choice: it goes by its version, with what a build for CUDA adds.
define install
	@$(pip) --require-hashes --no-deps --only-binary :all: --requirement requirements/$(1).txt
	@$(pip) --constraint constraints.txt torch
	@$(pip) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
endef
# As pyproject.toml says under tool.uv; hatchling is what builds.
lock = echo hatchling | $(BIN)/uv pip compile --quiet --constraint constraints.txt $(2) \
  --output-file requirements/$(1).txt pyproject.toml -
# Two processes with a thread of torch each: more of either only wait for one another. The files in
# their order (see tests/conftest.py), so that the longest ones do not come last.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# Folders and files whose tests keep things for a time, or say what day it is.
DATED := tests/store tests/workflow tests/cli tests/test_openai_calendar.py tests/test_moved_clock.py \
  $(addprefix tests/api/,files batches models conventions/test_retries.py)

.PHONY: help setup setup-dev run test test-fast test-dates lint format docs bench bench-training \
  bench-replying bench-agreement bench-growth bench-larger-model bench-neighbours \
  bench-stalls bench-long-prompts chaos fuzz load lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.product  ## Create .venv with emojitune in it

setup-dev: $(VENV)/.dev

run: setup  ## The main job: fine-tune the emoji chatbot on this machine, chat with it, score it
	$(BIN)/emojitune run

test: setup-dev  ## All tests, those with the real base model too
	$(PYTEST) --durations=12 --durations-min=5

test-fast: setup-dev  ## The default tier: a tiny random model, some three minutes
	$(PYTEST) -m "not slow and not gpu"

test-dates: setup-dev  ## What depends on the day, once more on a day after all of OpenAI's dates
	DAYS_AHEAD=400 PYTHONPATH=$(CURDIR)/tests/moved_clock $(PYTEST) -m "not slow and not gpu" $(DATED)

load: $(VENV)/.bench  ## Chats, uploads, followers and a training job at once (four runs, fifteen minutes)
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.load --kill --json benchmarks/results/load-with-a-kill.json
	$(BIN)/python -m benchmarks.load --long-prompts --seconds 60 \
	  --json benchmarks/results/load-beside-long-prompts.json

chaos: setup-dev  ## Kill server and workers 50 times while 10 jobs run (some minutes)
	OMP_NUM_THREADS=1 $(BIN)/python tests/chaos.py --jobs 10 --kills 50

fuzz: setup-dev  ## 10,000 odd requests, files, conversations and searches (some minutes)
	PYTHONPATH=tests:tests/api OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/run.py --cases 10000

lint: setup-dev  ## Format, lint, types, import contracts
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup-dev  ## Put the code into shape
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

bench: bench-agreement bench-training bench-replying  ## Measure beside the tools that people use today

bench-training: $(VENV)/.bench  ## Training alone
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.pictures

bench-replying: $(VENV)/.bench  ## Replying alone
	$(BIN)/python -m benchmarks.replying
	$(BIN)/python -m benchmarks.pictures

# Nothing is timed there, and threads that wait actively would only keep the machine busy.
bench-agreement: $(VENV)/.bench  ## How far the fast paths are from plain float32
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m benchmarks.agreement

bench-growth: $(VENV)/.bench  ## What grows with files and prompts (half an hour)
	$(BIN)/python -m benchmarks.scaling

bench-larger-model: $(VENV)/.bench  ## Training 1.5 billion parameters, on a GPU
	$(BIN)/python -m benchmarks.larger_model

bench-neighbours: $(VENV)/.bench  ## Training beside a busy thread, and beside chats (twenty minutes)
	$(BIN)/python -m benchmarks.contention

bench-long-prompts: $(VENV)/.bench  ## Long prompts beside transformers and llama.cpp (twenty minutes)
	$(BIN)/python -m benchmarks.long_prompts

# A broken bound in the table ends it before the mixed run.
bench-stalls: $(VENV)/.bench  ## Attacks by one project, another one's chats meanwhile (40 minutes)
	$(BIN)/python -m benchmarks.stalls
	$(BIN)/python -m benchmarks.stalls --minutes 20 --json benchmarks/results/stalls-mixed.json

docs: setup  ## Write docs/api.md again, from the request models and the routes
	$(BIN)/python -m emojitune.server.write_reference docs/api.md

lock: setup-dev  ## Write requirements/ again, after a change of constraints.txt or pyproject.toml
	$(pip) uv==0.13.9
	$(call lock,product)
	$(call lock,dev,--extra dev)
	$(call lock,bench,--extra bench)

clean:  ## Remove what the other targets made
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .import_linter_cache dist

$(VENV)/.python:
	@echo "Creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "emojitune needs Python 3.11 or newer; found $$($(PYTHON) --version). Run: make PYTHON=/path/to/python3.11 setup"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.product: $(VENV)/.python pyproject.toml constraints.txt requirements/product.txt
	@echo "Installing emojitune into $(VENV) (the first time this takes a few minutes)"
	$(call install,product)
	@touch $@

$(VENV)/.bench: $(VENV)/.python pyproject.toml constraints.txt requirements/bench.txt
	@echo "Installing emojitune with what it is measured beside into $(VENV)"
	$(call install,bench)
	@touch $@ $(VENV)/.product

$(VENV)/.dev: $(VENV)/.python pyproject.toml constraints.txt requirements/dev.txt
	@echo "Installing emojitune with its test tools into $(VENV)"
	$(call install,dev)
	@touch $@ $(VENV)/.product

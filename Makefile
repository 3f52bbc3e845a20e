# Two commands matter: `make study` and `make test`. Both set up what they need.

PYTHON ?= python3
# CPU is the default where no CUDA driver answers; `make PROFILE=gpu ...` forces the other.
PROFILE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
STUDY ?= jobs/configs/pocket.yaml
RUNTIME ?= jobs/configs/runtimes/laptop-2cpu.yaml
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(PROFILE)
DATA_URL ?= https://nlp.cs.princeton.edu/projects/entity-questions/dataset.zip

.PHONY: help setup study test test-fast lint format data clean

help:
	@echo "make study      set up, then run the pocket study to its report (STUDY=..., RUNTIME=...)"
	@echo "make test       set up, then lint and run every test"
	@echo "make test-fast  lint and the unit tests alone"
	@echo "make lint       ruff and mypy"
	@echo "make data       fetch EntityQuestions to data/entity_questions.zip"

setup: $(READY)

$(READY): requirements/$(PROFILE).lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "sftlab needs Python 3.11 to 3.13; choose one with make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps -r requirements/$(PROFILE).lock || \
	  { echo "Where torch's CPU build is not found: put PyTorch's CPU index into PIP_EXTRA_INDEX_URL, try again."; exit 2; }
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(READY)

study: setup
	$(BIN)/sftlab run $(STUDY) --runtime $(RUNTIME)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-fast: lint
	$(BIN)/pytest -n 2 tests/unit

test: test-fast
	$(BIN)/pytest tests/ray tests/e2e

data: data/entity_questions.zip

data/entity_questions.zip:
	mkdir -p data
	curl --fail --location --silent --show-error --output $@.part $(DATA_URL)
	mv $@.part $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache

# Two commands matter: `make study` and `make test`. Both set up what they need.

PYTHON ?= python3
# CPU is the default where no CUDA driver answers; `make PROFILE=gpu ...` forces the other.
PROFILE ?= $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
STUDY ?= jobs/configs/pocket.yaml
SURVEY ?= jobs/configs/surveys/pocket.yaml
RUNTIME ?= jobs/configs/runtimes/laptop-2cpu.yaml
VENV := .venv
# Tests start many processes: each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
# Only files whose hashes are in the locks; DeepSpeed alone comes as source, and is built with the locked setuptools.
PIP := $(BIN)/python -m pip install --no-deps --progress-bar off
LOCKED := $(PIP) --require-hashes --only-binary :all:
# Prints a line while a command works, at least every ten seconds.
HEARTBEAT := $(PYTHON) requirements/heartbeat.py 8
HINT_cpu := echo "Where torch's CPU build is not found: put PyTorch's CPU index into PIP_EXTRA_INDEX_URL, try again.";
READY := $(VENV)/.ready-$(PROFILE)
DATA_URL ?= https://nlp.cs.princeton.edu/projects/entity-questions/dataset.zip

.PHONY: help setup study survey test test-all test-ci test-fast unit lint format long chaos fuzz scale data clean

help:
	@echo "make study      set up, then run the pocket study to its report (STUDY=..., RUNTIME=...)"
	@echo "make survey     set up, then run the pocket survey to its report (SURVEY=..., RUNTIME=...)"
	@echo "make test       set up, then lint, all unit tests and a real study, sweep and tracking, end to end"
	@echo "make test-all   all of these and the rest: engines, training, faults, three nodes, an object store, browser"
	@echo "make test-ci    test-all without the tests marked rest, which repeat whole studies: what .ci/run runs"
	@echo "make test-fast  lint and the quick unit tests"
	@echo "make lint       ruff, mypy, the directions of imports and the words of the documentation"
	@echo "make long       tests that take minutes: training that moves to another machine, or whose rank is stopped"
	@echo "make chaos      a small study on three nodes, killed at random moments (SEED=0, KILLS=60; as root: all faults;"
	@echo "                PLAIN=1: the few faults of tests/e2e/test_nodes.py)"
	@echo "make fuzz       damaged inputs for every reader of what comes from outside (SEED=0, INPUTS=100000)"
	@echo "make scale      a million facts and a thousand trials through the pipelines, with engines that answer at once"
	@echo "make data       fetch EntityQuestions to data/entity_questions.zip"

setup: $(READY)

$(READY): requirements/$(PROFILE).lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "sftlab needs Python 3.11 to 3.13; choose one with make PYTHON=python3.12"; exit 2; }
	@echo "setup 1 of 4: creates the environment $(VENV)"
	@$(HEARTBEAT) $(PYTHON) -m venv $(VENV)
	@echo "setup 2 of 4: installs the build tools of requirements/build.lock"
	@$(HEARTBEAT) $(LOCKED) -r requirements/build.lock
	@echo "setup 3 of 4: installs the packages of requirements/$(PROFILE).lock, takes minutes"
	@$(HEARTBEAT) $(LOCKED) --no-binary deepspeed --no-build-isolation -r requirements/$(PROFILE).lock || \
	  { $(HINT_$(PROFILE)) exit 2; }
	@echo "setup 4 of 4: installs sftlab"
	@$(HEARTBEAT) $(PIP) --no-build-isolation -e .
	@touch $(READY)
	@echo "setup is complete"

study: setup
	$(BIN)/sftlab run $(STUDY) --runtime $(RUNTIME)

survey: setup
	$(BIN)/sftlab survey $(SURVEY) --runtime $(RUNTIME)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.support.words

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-fast: setup
	$(MAKE) --no-print-directory -j 2 lint unit

unit: setup
	$(BIN)/pytest -n 2 --dist worksteal tests/unit $(LATER_TESTS:%=--ignore=%)

# Unit tests that start processes, servers or Ray's launcher, build many models, draw dozens of pages, or compare
# thousands of drawn inputs with a second formulation: whatever takes seconds.
LATER_TESTS := $(addprefix tests/unit/,analysis/test_accuracy.py analysis/test_geometry.py \
	analysis/test_statistics.py cli/test_app.py cli/test_compare.py cli/test_json.py deploy/test_aws.py \
	deploy/test_guide.py deploy/test_kubernetes.py deploy/test_make_setup.py facts/test_facts.py \
	inference/test_hidden.py inference/test_watchdog.py measurements/test_fact_gradients.py \
	measurements/test_sandbox.py security/test_readers.py store/test_backends.py store/test_object_locks.py \
	store/test_object_training.py store/test_objects.py store/test_races.py strategies/test_own_strategy.py \
	studies/knowledge/report/test_findings.py studies/knowledge/report/test_golden.py \
	studies/knowledge/report/test_models_page.py studies/knowledge/report/test_page.py \
	studies/knowledge/report/test_tables.py studies/knowledge/report/test_ties.py \
	studies/knowledge/results/test_statistics.py studies/knowledge/results/test_tables.py \
	studies/knowledge/test_materialize.py studies/survey/test_compare.py studies/survey/test_map.py \
	studies/survey/test_similarity_of_sets.py studies/survey/test_survey_page.py test_errors.py \
	test_python_examples.py training/test_shared_weights.py weights/test_controls.py weights/test_delta.py \
	weights/test_edits.py weights/test_layout.py weights/test_packing.py weights/test_packing_faults.py \
	weights/test_restoration.py weights/test_selection.py weights/test_update_size.py)
# A real path through each engine: Ray Data and vLLM, Ray Train and DeepSpeed, MLflow in a study; Ray Tune.
PATH_TESTS := tests/e2e/test_study.py tests/ray/test_sweep_tune.py
# The tests of a file share its Ray, engines and servers; two files run at a time, in the order given.
GROUPED := -n 2 --dist loadfile --no-loadscope-reorder

test: test-fast
	$(BIN)/pytest $(GROUPED) $(LATER_TESTS) $(PATH_TESTS)

HEAVY_TESTS := tests/e2e tests/ray tests/gpu tests/fuzz

test-all: test-fast
	$(BIN)/pytest $(GROUPED) $(HEAVY_TESTS) $(LATER_TESTS)

# What .ci/run runs: all but the tests marked `rest`, each of which repeats whole studies.
test-ci: test-fast
	$(BIN)/pytest $(GROUPED) -m "not long and not rest" $(HEAVY_TESTS) $(LATER_TESTS)

long: setup
	$(BIN)/pytest -m long tests/ray

SEED ?= 0
KILLS ?= 60

chaos: setup
	$(BIN)/python -m tests.chaos --seed $(SEED) --kills $(KILLS) $(if $(PLAIN),--plain)

INPUTS ?= 100000

fuzz: setup
	$(BIN)/python -m tests.fuzz.run --inputs $(INPUTS) --seed $(SEED)

scale: setup
	$(BIN)/python -m benchmarks.scale_scoring --facts 1000000 --engines 2
	$(BIN)/python -m benchmarks.scale_sweep --trials 1000 --engines 64

data: data/entity_questions.zip

data/entity_questions.zip:
	mkdir -p data
	curl --fail --location --silent --show-error --output $@.part $(DATA_URL)
	mv $@.part $@

clean:
	rm -rf $(VENV) runs .pytest_cache .mypy_cache .ruff_cache

# Everything runs in .venv; the first verb that needs it sets it up (some minutes, once).
VENV ?= .venv
PYTHON ?= python3
# An index of PyTorch builds, CPU-only or CUDA (pytorch.org, "Get Started", lists them). Empty: what pip finds by itself.
TORCH_INDEX ?=
# Passed on: make demo ARGS="--source a.csv …", make test ARGS="-k fusion".
ARGS ?=

# HASHED=1: every file that is installed must have its hash in requirements.lock.
HASHED ?=

BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo web docs bench test learning examples lint types format dist licences lock release clean

help: ## what each verb does
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## create .venv with the versions of constraints.txt

demo: $(READY) ## the whole way on two synthetic domains: train, adapt, export, report
	$(BIN)/mifuse demo $(ARGS)

# The page's one dependency, with the versions of package-lock.json; no script of a package is run.
web: ## runtime/web: what the page and the module need, for its tests too; then `npm start` in that folder
	cd runtime/web && npm ci --ignore-scripts --no-audit --no-fund

docs: $(READY) ## build/site: the documentation as pages; every warning is an error, dead links too
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -q

bench: $(READY) ## every table of the docs: measured, or as stored; ARGS="peers" measures one that takes longer
	@$(BIN)/python -m benchmarks $(ARGS)

# `-n logical`: a process for each core; every process has one torch thread. `worksteal` leaves the tests of a file to
# one process, mostly: what they share is made once.
test: $(READY) ## all tests (those on real recordings need MIFUSE_CORPORA)
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal $(ARGS)

# Another CPU rounds otherwise: where training ends is another place, and what the tests ask must hold there, too.
learning: $(READY) ## the tests that train, as on a CPU without AVX
	ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal -m learning tests $(ARGS)

# What Pipecat, LiveKit and Gradio need is 900 MB and partly at odds with constraints.txt.
examples: $(READY) ## the examples for voice agents and Gradio, in an environment of their own
	$(PYTHON) -m venv --without-pip build/examples
	$(BIN)/python -m pip --python build/examples/bin/python install -q --no-compile pytest soundfile onnx onnxruntime \
		$$(grep -hE '^(pipecat-ai|livekit-agents|wyoming|gradio)==' constraints.txt)
	build/examples/bin/python -m pytest --noconftest -p no:cacheprovider tests/test_voice_agent.py tests/test_gradio.py

lint: $(READY) ## ruff: format and rules; import-linter: arrows between rooms, no circles
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(READY) ## mypy --strict
	$(BIN)/mypy

format: $(READY) ## rewrite the sources as `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

dist: $(READY) ## sdists and wheels of the last commit, tried in empty environments; parts and licences beside them
	VENV=$(VENV) .ci/dist

licences: $(READY) ## the licence of every dependency; fails at one that is not allowed
	$(BIN)/python -m benchmarks.supply licences

lock: ## requirements.lock anew from constraints.txt, with uv
	uv pip compile -q --universal --python-version 3.10 --generate-hashes --extra all --extra fuzz \
		-c constraints.txt setup.cfg --custom-compile-command "make lock" -o requirements.lock

release: $(READY) ## the same of a dated version, and its tag
	VENV=$(VENV) .ci/release

clean: ## remove build outputs and caches; .venv stays
	rm -rf build dist runtime/build runtime/web/node_modules *.egg-info runtime/*.egg-info demo
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(READY): constraints.txt setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
	|| { echo "mifuse needs Python 3.10 or newer: make PYTHON=/path/to/python3 …"; exit 1; }
	@echo "Setting up $(VENV) once: 130 packages, 2 GB, some minutes."
	$(PYTHON) -m venv $(VENV)
ifdef HASHED
	$(BIN)/python -m pip install -q --require-hashes -r requirements.lock
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation -e .
else
	$(BIN)/python -m pip install -q -c constraints.txt setuptools
	$(BIN)/python -m pip install -q -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(BIN)/python -m pip install -q -c constraints.txt --no-build-isolation -e '.[all]'
endif
	$(BIN)/mifuse doctor --fix
	@touch $@

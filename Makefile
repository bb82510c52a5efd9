# Everything a person does with a clone: `make help` lists it.
#
# Works with GNU make 3.81 and newer, from any folder through `make -C`, and in an environment that
# is already active (VIRTUAL_ENV, CONDA_PREFIX), which is then used instead of a new .venv.

.DEFAULT_GOAL := help
.PHONY: help install test browser test-avx2 lint types parity demo real tutorials exercises clean distclean

PYTHON ?= python3
TORCH ?= torch
PARITY_TORCH ?= torch==2.14.1 torchvision==0.29.1
ARGS =

VENV = $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),.venv)
RUN = "$(VENV)/bin/python"
NUMERIC_TESTS = $(addprefix tests/,test_attention.py test_blocks.py test_captioner.py test_cpu.py \
    test_decoder.py test_embeddings.py test_generation.py test_resnet.py test_vit.py \
    test_word_maps.py explain training/test_loop.py training/test_muon.py \
    training/test_optimizers.py weights_convert/test_formats.py)
PARITY_VENV = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/minivit/parity-env

# For .ci/environment.sh, which makes the environments and says what it reads.
export PYTHON TORCH PARITY_TORCH
export ACTIVE = $(or $(VIRTUAL_ENV),$(CONDA_PREFIX))
export PYTHON_WAS_NAMED = $(filter command,$(origin PYTHON))
export PIP_DISABLE_PIP_VERSION_CHECK = 1

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  TORCH=torch==2.13.0   the torch to install first (test, demo, lint, types)'
	@echo '  PYTHON=python3.12     the Python that makes a new environment (3.10 or newer)'
	@echo '  VENV=.venv            the environment to use; default: the active one, else .venv'
	@echo '  ARGS="-k attention"   more arguments for pytest (test, parity), train.py (demo), or the lessons (--all)'

install: ## the environment with minivit (editable) and its development tools
	@.ci/environment.sh tools "$(VENV)"

test: install ## the tests: no network, no other library, eight minutes on two cores
	$(RUN) -m pytest -m "not parity" --durations=10 --durations-min=1 $(ARGS)

browser: install ## the tests of the explorer's page in a real browser (Debian's chromium); no skips
	@.ci/environment.sh browser "$(VENV)"
	@.ci/environment.sh real "$(VENV)"
	@$(RUN) -m weights_convert.real > /dev/null
	$(RUN) -m pytest -m browser --no-skips $(ARGS)

# A processor that has more computes as one of 2013 does; what takes effect is printed first.
# Left out: the compiled step. With ATEN_CPU_CAPABILITY lowered torch.compile mixes both kinds of
# instructions and gives NaN (torch 2.13, a processor with AVX-512); with AVX2 alone it is right.
test-avx2: install ## the numeric tests once more, with the instructions of an older processor
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	    $(RUN) -m tests.instructions
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	    $(RUN) -m pytest -m "not parity" $(NUMERIC_TESTS) \
	    --deselect tests/training/test_loop.py::test_a_compiled_step_is_the_same $(ARGS)

lint: install ## ruff: rules and formatting
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: install ## mypy, strict
	$(RUN) -m mypy

demo: install ## pictures by the shipped weights, then a training and its own: runs/demo/
	@.ci/demo.sh "$(VENV)/bin/python" runs/demo $(ARGS)

real: install ## trained weights of a DINOv2 ViT-S/14 (90 MB, once), into the user's cache folder
	@.ci/environment.sh real "$(VENV)"
	@$(RUN) -m weights_convert.real

tutorials: install ## run the lessons whose source has changed, into notebooks with outputs
	@$(RUN) -m tutorials.make_notebooks $(ARGS)

exercises: install ## the lessons without solutions: tutorials/work/
	@$(RUN) -m tutorials.make_notebooks --exercises $(ARGS)

parity: ## the comparisons with other libraries, live, in an environment of their own; no skips
	@.ci/environment.sh parity "$(PARITY_VENV)"
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" \
	    "$(PARITY_VENV)/bin/python" -m weights_convert.real
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" \
	    "$(PARITY_VENV)/bin/python" -m pytest -m parity --no-skips $(ARGS)

clean: ## remove caches and build artefacts; runs/ and the environments stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## the same, and remove .venv
	rm -rf .venv

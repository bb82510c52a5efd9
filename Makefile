# Everything a person does with a clone: `make help` lists it.
#
# Works with GNU make 3.81 and newer, from any folder through `make -C`, and in an environment that
# is already active (VIRTUAL_ENV, CONDA_PREFIX), which is then used instead of a new .venv.

.DEFAULT_GOAL := help
.PHONY: help install test lint types parity demo clean distclean

PYTHON ?= python3
TORCH ?= torch
PARITY_TORCH ?= torch==2.14.1 torchvision==0.29.1
ARGS =

VENV = $(or $(VIRTUAL_ENV),$(CONDA_PREFIX),.venv)
RUN = "$(VENV)/bin/python"
PARITY_VENV = $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/minivit/parity-env

# Requirements reach the shell as variables of the environment, where the `>` of `torch>=2.6` is
# not a redirection. They may hold pip options: TORCH="torch --index-url URL".
export TORCH PARITY_TORCH
export PIP_DISABLE_PIP_VERSION_CHECK = 1

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  TORCH=torch==2.13.0   the torch to install first (test, demo, lint, types)'
	@echo '  PYTHON=python3.12     the Python that makes a new environment (3.10 or newer)'
	@echo '  VENV=.venv            the environment to use; default: the active one, else .venv'
	@echo '  ARGS="-k attention"   more arguments for pytest (test, parity)'

install: ## the environment with minivit (editable) and its development tools
	@$(shell_functions) \
	active='$(or $(VIRTUAL_ENV),$(CONDA_PREFIX))'; venv='$(VENV)'; \
	if [ "$$venv" = "$$active" ] && [ ! -x "$$venv/bin/python" ]; then \
	    fail "the active environment $$venv has no bin/python: deactivate it or activate another."; \
	fi; \
	environment "$$venv"; \
	stamp="$$venv/.minivit-installed"; asked=; from=; \
	if [ -f "$$stamp" ]; then { read -r asked; read -r from; } < "$$stamp" || :; fi; \
	if [ "$$from" = "$$PWD" ] && [ ! pyproject.toml -nt "$$stamp" ] \
	    && { [ "$$TORCH" = torch ] || [ "$$TORCH" = "$$asked" ]; }; then exit 0; fi; \
	say "installing into $$venv"; \
	rm -f "$$stamp"; \
	pip_install "$$venv" $$TORCH; \
	pin=; \
	if [ "$$TORCH" != torch ]; then \
	    pin=$$("$$venv/bin/python" -c "$$PRINT_TORCH_PIN") \
	        || fail "TORCH=$$TORCH installed no torch into $$venv."; \
	fi; \
	pip_install "$$venv" --editable '.[dev]' $$pin; \
	printf '%s\n%s\n' "$$TORCH" "$$PWD" > "$$stamp"

test: install ## the tests: no network, no other library, under six minutes on two cores
	$(RUN) -m pytest -m "not parity" --durations=10 --durations-min=1 $(ARGS)

lint: install ## ruff: rules and formatting
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

types: install ## mypy, strict
	$(RUN) -m mypy

demo: install ## train on the built-in scenes, then draw: pictures in runs/demo/
	$(RUN) train.py --out runs/demo --overwrite
	$(RUN) visualize.py attention --out runs/demo
	$(RUN) visualize.py positions --weights runs/demo/best.safetensors --out runs/demo
	$(RUN) visualize.py caption --out runs/demo/caption

# This environment takes gigabytes, so that all clones share it: minivit itself is not installed
# into it but found through PYTHONPATH, and it is brought up to date when the requirements change.
parity: ## the comparisons with other libraries, live, in an environment of their own; no skips
	@$(shell_functions) \
	venv='$(PARITY_VENV)'; \
	mkdir -p "$$(dirname "$$venv")" || fail "cannot make the folder of $$venv: set XDG_CACHE_HOME."; \
	if command -v flock > /dev/null; then exec 9> "$$venv.lock"; flock 9; fi; \
	environment "$$venv"; \
	stamp="$$venv/minivit-requirements.txt"; \
	list=$$("$$venv/bin/python" -c "$$PRINT_PARITY_REQUIREMENTS") \
	    || fail "cannot read the requirements in pyproject.toml."; \
	wanted=$$(printf '# after %s\n%s' "$$PARITY_TORCH" "$$list"); \
	if [ ! -f "$$stamp" ] || [ "$$(cat "$$stamp")" != "$$wanted" ]; then \
	    say "installing into $$venv"; \
	    rm -f "$$stamp"; \
	    printf '%s\n' "$$wanted" > "$$stamp.new"; \
	    pip_install "$$venv" $$PARITY_TORCH; \
	    pip_install "$$venv" --requirement "$$stamp.new"; \
	    mv "$$stamp.new" "$$stamp"; \
	fi
	PYTHONPATH="$(CURDIR)$${PYTHONPATH:+:$$PYTHONPATH}" \
	    "$(PARITY_VENV)/bin/python" -m pytest -m parity --no-skips $(ARGS)

clean: ## remove caches and build artefacts; runs/ and the environments stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean ## the same, and remove .venv
	rm -rf .venv

# ---- how it is done ---------------------------------------------------------------------------

# Start of every recipe that is a script. Each function ends the recipe with a sentence when it
# cannot do its work.
#   environment DIR          a Python >= 3.10 with pip in DIR, made when there is none
#   pip_install DIR ARG...   `pip install ARG...` there
define shell_functions
set -eu; \
say() { printf 'minivit: %s\n' "$$*" >&2; }; \
fail() { say "$$*"; exit 1; }; \
version() { "$$@" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }; \
new_enough() { "$$@" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; }; \
environment() { \
    if [ ! -x "$$1/bin/python" ]; then \
        command -v $(PYTHON) > /dev/null \
            || fail "there is no $(PYTHON) here: install Python 3.10 or newer, or name one, as in PYTHON=python3.12."; \
        new_enough $(PYTHON) \
            || fail "minivit needs Python 3.10 or newer and $(PYTHON) is $$(version $(PYTHON)): name another, as in PYTHON=python3.12."; \
        $(PYTHON) -c 'import ensurepip, venv' 2> /dev/null \
            || fail "$(PYTHON) cannot make environments, its venv module is missing: on Debian and Ubuntu run 'apt-get install python$$(version $(PYTHON))-venv'."; \
        if [ -e "$$1" ] && [ ! -f "$$1/pyvenv.cfg" ] && ! rmdir "$$1" 2> /dev/null; then \
            fail "$$1 is there and is not an environment: move it away, or name another place."; \
        fi; \
        say "making the environment $$1"; \
        $(PYTHON) -m venv --clear "$$1" \
            || { rm -rf "$$1"; fail "$(PYTHON) -m venv $$1 failed: the lines above say why."; }; \
    fi; \
    new_enough "$$1/bin/python" \
        || fail "minivit needs Python 3.10 or newer and the environment $$1 has $$(version "$$1/bin/python"): use another environment."; \
    if [ -n '$(filter command,$(origin PYTHON))' ] && [ "$$(version $(PYTHON))" != "$$(version "$$1/bin/python")" ]; then \
        fail "the environment $$1 has Python $$(version "$$1/bin/python"), not $(PYTHON): leave PYTHON out, or remove that environment first."; \
    fi; \
    "$$1/bin/python" -m pip --version > /dev/null 2>&1 \
        || "$$1/bin/python" -m ensurepip > /dev/null 2>&1 \
        || fail "the environment $$1 has no pip: install pip into it, or use another environment."; \
}; \
pip_install() { \
    pip_into=$$1; shift; \
    "$$pip_into/bin/python" -m pip install "$$@" \
        || fail "pip install $$* failed in $$pip_into: the lines above say why."; \
};
endef

# The torch that TORCH brought, so that the project's own requirements fail rather than replace it.
define PRINT_TORCH_PIN
from importlib.metadata import version
print("torch==" + version("torch"))
endef

define PRINT_PARITY_REQUIREMENTS
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *extras["test"], *extras["parity"], sep="\n")
endef

export PRINT_TORCH_PIN PRINT_PARITY_REQUIREMENTS

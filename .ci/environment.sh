#!/usr/bin/env bash
# The environments that the Makefile works in: made, checked, and brought up to date.
#
#   .ci/environment.sh tools DIR     minivit (editable) with its development tools
#   .ci/environment.sh real DIR      what `make real` needs besides, in an environment with tools
#   .ci/environment.sh browser DIR   what `make browser` needs besides, in the same
#   .ci/environment.sh parity DIR    the libraries that `make parity` compares with
#
# Nothing is done twice: a stamp in DIR says what was installed. Read from the environment: PYTHON
# makes a new DIR (PYTHON_WAS_NAMED: the user chose it, and DIR must have that version); TORCH and
# PARITY_TORCH are requirements that pip installs first, with options if need be; ACTIVE is an
# environment that is activated. Each problem ends the script with one sentence.
set -euo pipefail

say() { printf 'minivit: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])'; }

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 10))'; }

# A new environment in DIR, by $PYTHON.
make_environment() {
    local dir=$1
    command -v "$PYTHON" > /dev/null \
        || fail "there is no $PYTHON here: install Python 3.10 or newer, or name one, as in PYTHON=python3.12."
    is_new_enough "$PYTHON" \
        || fail "minivit needs Python 3.10 or newer and $PYTHON is $(version_of "$PYTHON"): name another, as in PYTHON=python3.12."
    "$PYTHON" -c 'import ensurepip, venv' 2> /dev/null \
        || fail "$PYTHON cannot make environments, its venv module is missing: on Debian and Ubuntu run 'apt-get install python$(version_of "$PYTHON")-venv'."
    if [ -e "$dir" ] && [ ! -f "$dir/pyvenv.cfg" ] && ! rmdir "$dir" 2> /dev/null; then
        fail "$dir is there and is not an environment: move it away, or name another place."
    fi
    say "making the environment $dir"
    if ! "$PYTHON" -m venv --clear "$dir"; then
        rm -rf "$dir"
        fail "$PYTHON -m venv $dir failed: the lines above say why."
    fi
}

# An environment in DIR with a Python that will do, and pip.
need_environment() {
    local dir=$1
    [ -x "$dir/bin/python" ] || make_environment "$dir"
    is_new_enough "$dir/bin/python" \
        || fail "minivit needs Python 3.10 or newer and the environment $dir has $(version_of "$dir/bin/python"): use another environment."
    if [ -n "${PYTHON_WAS_NAMED:-}" ] && [ "$(version_of "$PYTHON")" != "$(version_of "$dir/bin/python")" ]; then
        fail "the environment $dir has Python $(version_of "$dir/bin/python"), not $PYTHON: leave PYTHON out, or remove that environment first."
    fi
    "$dir/bin/python" -m pip --version > /dev/null 2>&1 \
        || "$dir/bin/python" -m ensurepip > /dev/null 2>&1 \
        || fail "the environment $dir has no pip: install pip into it, or use another environment."
}

# pip_install DIR ARGUMENT...
pip_install() {
    local dir=$1
    shift
    "$dir/bin/python" -m pip install "$@" \
        || fail "pip install $* failed in $dir: the lines above say why."
}

# The torch that was installed first, so that other requirements fail rather than replace it.
torch_pin() { "$1/bin/python" -c 'from importlib.metadata import version; print("torch==" + version("torch"))'; }

tools() {
    local dir=$1 stamp="$1/.minivit-installed" torch_then="" place_then="" pin=""
    if [ "$dir" = "${ACTIVE:-}" ] && [ ! -x "$dir/bin/python" ]; then
        fail "the active environment $dir has no bin/python: deactivate it or activate another."
    fi
    need_environment "$dir"
    if [ -f "$stamp" ]; then { read -r torch_then && read -r place_then; } < "$stamp" || :; fi
    if [ "$place_then" = "$PWD" ] && [ ! pyproject.toml -nt "$stamp" ] \
        && { [ "$TORCH" = torch ] || [ "$TORCH" = "$torch_then" ]; }; then
        return
    fi
    say "installing into $dir"
    rm -f "$stamp"
    # shellcheck disable=SC2086 # TORCH may hold options of pip beside the requirement
    pip_install "$dir" $TORCH
    if [ "$TORCH" != torch ]; then
        pin=$(torch_pin "$dir") || fail "TORCH=$TORCH installed no torch into $dir."
    fi
    pip_install "$dir" --editable '.[dev]' ${pin:+"$pin"}
    printf '%s\n%s\n' "$TORCH" "$PWD" > "$stamp"
}

# requirements DIR GROUP...: those of the groups in pyproject.toml, one a line; the group
# "dependencies" is that of the run time, the others are extras.
requirements() {
    "$1/bin/python" - "${@:2}" << 'PYTHON' || fail "cannot read the requirements in pyproject.toml."
import sys
try:
    import tomllib
except ImportError:
    from pip._vendor import tomli as tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
groups = {"dependencies": project["dependencies"], **project["optional-dependencies"]}
print(*[line for group in sys.argv[1:] for line in groups[group]], sep="\n")
PYTHON
}

# extra DIR GROUP MODULE...: the group's requirements, where a module of theirs is missing.
extra() {
    local dir=$1 group=$2 wanted
    shift 2
    if "$dir/bin/python" -c "import $(IFS=,; echo "$*")" 2> /dev/null; then return; fi
    wanted=$(requirements "$dir" "$group")
    say "installing $wanted into $dir"
    # shellcheck disable=SC2086 # a requirement a word
    pip_install "$dir" --quiet $wanted
}

# This environment takes gigabytes, so that all clones share it: minivit itself is not installed
# into it, and it is brought up to date when the requirements change.
parity() {
    local dir=$1 stamp="$1/minivit-requirements.txt" lines wanted
    mkdir -p "$(dirname "$dir")" || fail "cannot make the folder of $dir: set XDG_CACHE_HOME."
    if command -v flock > /dev/null; then
        exec 9> "$dir.lock"
        flock 9
    fi
    need_environment "$dir"
    lines=$(requirements "$dir" dependencies test tutorials parity real)
    wanted=$(printf '# after %s\n%s' "$PARITY_TORCH" "$lines")
    if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
    say "installing into $dir"
    rm -f "$stamp"
    printf '%s\n' "$wanted" > "$stamp.new"
    # shellcheck disable=SC2086 # as above
    pip_install "$dir" $PARITY_TORCH
    pip_install "$dir" --requirement "$stamp.new"
    mv "$stamp.new" "$stamp"
}

case "${1:-} $#" in
    "tools 2") tools "$2" ;;
    "real 2") extra "$2" real onnx ;;
    "browser 2") extra "$2" explorer-tests playwright wasmtime ;;
    "parity 2") parity "$2" ;;
    *) fail "usage: .ci/environment.sh tools|real|browser|parity DIR" ;;
esac

#!/usr/bin/env bash
# Build .venv from nothing: a Python, torch as constrained, then the rest, then Ogive itself.
#
#   scripts/setup.sh                                                   what `make setup` runs
#   PYTHON=/opt/python3.13 scripts/setup.sh                            with this interpreter
#   TORCH_INDEX=https://download.pytorch.org/whl/cpu scripts/setup.sh  torch without CUDA (Linux, no GPU)
set -euo pipefail
cd "$(dirname "$0")/.."

venv=.venv
probe='import sys, venv, ensurepip; sys.exit(not sys.version_info >= (3, 11))'

find_python() {
    local candidate
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3 python}; do
        if "$candidate" -c "$probe" >/dev/null 2>&1; then
            echo "$candidate"
            return
        fi
    done
    {
        echo "error: no Python 3.11 or newer with venv was found (tried: ${PYTHON:-python3.11 … python3.14, python3, python})."
        echo "Install one (Debian, Ubuntu: apt install python3 python3-venv; macOS: brew install python@3.13),"
        echo "or name it: make setup PYTHON=/path/to/python"
    } >&2
    return 1
}

# A .venv that was moved, or whose interpreter has gone, is built again rather than mended.
if ! "$venv/bin/python" -c "$probe" >/dev/null 2>&1 || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    python=$(find_python)
    echo "== $venv from $("$python" --version)"
    "$python" -m venv --clear "$venv"
fi

pip=("$venv/bin/python" -m pip --disable-pip-version-check --no-input install --quiet
     --constraint constraints.txt --only-binary :all:)

# torch goes first and alone: every later requirement then finds it there, and none brings another.
echo "== torch"
"${pip[@]}" ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch

# The build backend goes second, so that Ogive builds without an isolated environment.
echo "== everything else"
"${pip[@]}" scikit-build-core
"${pip[@]}" --no-build-isolation --editable '.[dev]'
"$venv/bin/python" -m pip --disable-pip-version-check check

scripts/kernels.sh
scripts/system_packages.sh

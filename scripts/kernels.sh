#!/usr/bin/env bash
# Compile the kernels for the editable install in .venv. Never fails the setup: without a compiler
# Ogive works on its other implementations, and ogive.impls() says what is missing.
set -uo pipefail
cd "$(dirname "$0")/.."

python=.venv/bin/python
log=build/kernels.log
mkdir -p build

build() {
    "$python" -m cmake -S . -B build/kernels -DCMAKE_BUILD_TYPE=Release \
        -DPython_EXECUTABLE="$PWD/$python" &&
        "$python" -m cmake --build build/kernels --parallel "$(nproc 2>/dev/null || echo 2)"
}

echo "== the compiled kernels"
if ! build >"$log" 2>&1; then
    echo "note: the kernels were not compiled, and Ogive runs without them. The reason is in $log:"
    grep -m 3 -iE "error|not found|could not" "$log" | sed 's/^/    /'
fi
exit 0

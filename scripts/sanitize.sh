#!/usr/bin/env bash
# Compile the kernels with the compiler's sanitizers, in a copy of the checkout, and run the tests
# that reach every edge of memory: shapes, masks, layouts, bad input, random calls. Any report ends
# the process, and so the run, with an error.
#
#   scripts/sanitize.sh                    address and undefined behaviour
#   scripts/sanitize.sh TESTS…             these tests instead
#   OGIVE_SANITIZE=thread …                another sanitizer of the compiler
set -euo pipefail
cd "$(dirname "$0")/.."

python=$PWD/.venv/bin/python
sanitizers=${OGIVE_SANITIZE:-address,undefined}
copy=build/sanitize/${sanitizers//,/-}
tests=("$@")
[ $# -gt 0 ] || tests=(
    tests/kernels/test_native_memory.py
    tests/kernels/test_t02_shapes.py
    tests/kernels/test_t03_masked_rows.py
    tests/kernels/test_t05_layouts.py
    tests/kernels/test_t15_invalid.py
    tests/kernels/test_instruction_sets.py
    tests/kernels/test_native_torture.py
)

mkdir -p "$copy"
rm -rf "${copy:?}/src" "${copy:?}/tests"
cp -r src tests CMakeLists.txt pyproject.toml README.md LICENSE "$copy/"
find "$copy/src" -name '_native*.so' -delete
cd "$copy"

settings=(-DOGIVE_SANITIZE="$sanitizers" -DOGIVE_OPTIMISE=-O1 -DPython_EXECUTABLE="$python")
command -v ccache >/dev/null && settings+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
echo "== the kernels with $sanitizers"
"$python" -m cmake -S . -B build "${settings[@]}" >build.log 2>&1 &&
    "$python" -m cmake --build build --parallel "${JOBS:-2}" >>build.log 2>&1 ||
    { tail -n 20 build.log; exit 1; }

# The interpreter is not instrumented: the runtime comes first, and what Python never frees is not
# a leak of ours.
runtime=asan
[[ $sanitizers == *thread* ]] && runtime=tsan
library=$("${CXX:-c++}" -print-file-name=lib$runtime.so)
# libstdc++ beside it: a runtime that starts before __cxa_throw is there dies at the first exception.
library+=:$("${CXX:-c++}" -print-file-name=libstdc++.so)
export ASAN_OPTIONS=detect_leaks=0:halt_on_error=1:allocator_may_return_null=1
# Fresh memory holds NaN (every byte 0xff), so that what is read before it is written shows.
ASAN_OPTIONS+=:max_malloc_fill_size=1073741824:malloc_fill_byte=255
export UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1
export OMP_NUM_THREADS=1 PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}"
echo "== the tests"
# What a sanitizer writes before it ends the process must not be caught by pytest.
LD_PRELOAD="$library" "$python" -m pytest -q -p no:cacheprovider --capture=sys "${tests[@]}"

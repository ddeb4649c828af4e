"""Where the time of a call goes: products, the weight function, packing, and what is around them.

    python benchmarks/shares.py [--only softmax] [--output FILE]

Each call runs in a process of its own under Linux's `perf`, on one thread, and every sample is
counted to one of `PARTS` by the name of the function it fell into. A stripped module has no such
names: the kernels are compiled once more, with theirs, in build/profile.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from harness import RESULTS, forward, machine_line, save, training

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "profile"
SECONDS = 5

OURS = (  # an editable install would bring its own module first
    "import sys; sys.meta_path[:] = "
    "[f for f in sys.meta_path if not type(f).__module__.startswith('_editable_skbc')]"
)

PARTS = {
    "products": r"^(micro|against_panels|add_product|score_few|spend_few|spend_vectors|sums_of)",
    "score of a sum": r"^(ratio_|ramp_|curve_|additive_)",
    "weight function": r"^(weigh_|turn_|add_delta|add_few_delta|drop_|stay_)",
    "packing and writing": r"^(pack_|with_kind|write_|add_hands|load_some|take_bias|add_bias)",
}
"""By the start of a function's name; what is left of the module is `loops`."""


def build() -> Path:
    """The folder of a package whose module has its functions' names.

    Raises:
        SystemExit: it does not compile, or `perf` is not there.
    """
    if not shutil.which("perf"):
        sys.exit("benchmarks/shares.py needs `perf` of Linux, which is not on the path")
    for name in ("src", "CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"):
        source, target = ROOT / name, PLACE / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "_native*")
            shutil.copytree(source, target, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy2(source, target)
    cmake = [sys.executable, "-m", "cmake"]
    settings = ["-DOGIVE_SYMBOLS=ON", f"-DPython_EXECUTABLE={sys.executable}"]
    for words in (
        [*cmake, "-S", str(PLACE), "-B", str(PLACE / "build"), *settings],
        [*cmake, "--build", str(PLACE / "build"), "--parallel", str(os.cpu_count())],
    ):
        told(*words)
    return PLACE / "src"


# --- calls --------------------------------------------------------------------------------------


def _dense(weight: str, length: int, *, causal: bool = False, train: bool = False, **options):
    import attention as script

    from ogive.kernels import attention

    def call(q, k, v):
        return attention(q, k, v, weight=weight, is_causal=causal, impl="native", **options)

    return (training if train else forward)(call, *script.inputs(length))


def _biased(length: int) -> Callable[[], object]:
    import attention as script
    import torch

    from ogive.kernels import attention

    def call(q, k, v, bias):
        return attention(q, k, v, attn_bias=bias, impl="native")

    return training(call, *script.inputs(length), torch.randn(1, 8, length, length))


def _additive(length: int, *, train: bool) -> Callable[[], object]:
    import additive as script

    run, tensors = script.ours("additive(tanh)"), script.inputs("additive(tanh)", length)
    return (training if train else forward)(run, *tensors)


SIGMOID, RELU = "sigmoid(bias=-log_n)", "relu(length_power=1)"
CALLS: dict[tuple[str, str, int], Callable[[], Callable[[], object]]] = {
    ("softmax", "forward", 16): lambda: _dense("softmax", 16),
    ("softmax", "forward", 64): lambda: _dense("softmax", 64),
    ("softmax", "forward", 512): lambda: _dense("softmax", 512),
    ("sigmoid", "forward", 512): lambda: _dense(SIGMOID, 512),
    ("tanh", "forward", 512): lambda: _dense("tanh", 512),
    ("relu", "forward", 512): lambda: _dense(RELU, 512),
    ("softmax", "forward, causal", 512): lambda: _dense("softmax", 512, causal=True),
    ("softmax", "training", 512): lambda: _dense("softmax", 512, train=True),
    ("sigmoid", "training", 512): lambda: _dense(SIGMOID, 512, train=True),
    ("softmax, dropout 0.1", "training", 512): lambda: _dense(
        "softmax", 512, train=True, dropout_p=0.1
    ),
    ("softmax, learned bias", "training", 512): lambda: _biased(512),
    ("softmax of additive(tanh)", "forward", 512): lambda: _additive(512, train=False),
    ("softmax of additive(tanh)", "training", 512): lambda: _additive(512, train=True),
}


def run(at: int) -> None:
    """Call number `at` again and again; says so once everything is loaded."""
    import torch

    torch.set_num_threads(1)
    call = list(CALLS.values())[at]()
    for _ in range(3):
        call()
    print("ready", flush=True)
    while True:
        call()


# --- samples ------------------------------------------------------------------------------------


def part_of(module: str, symbol: str) -> str:
    """To which part a sample counts."""
    if "_native" not in module:
        return "memory of the system" if "kernel" in module else "torch and Python"
    name = re.sub(r"^(void |float |double )?", "", symbol).removeprefix("ogive::")
    name = re.sub(r"^(avx2|avx512|baseline)::", "", name)
    return next((part for part, starts in PARTS.items() if re.match(starts, name)), "loops")


def told(*words: str) -> str:
    """What a command prints.

    Raises:
        SystemExit: it failed; its words are in the message.
    """
    ran = subprocess.run(words, capture_output=True, text=True, check=False)
    if ran.returncode:
        sys.exit(f"{words[0]} {words[1]} failed:\n{(ran.stdout + ran.stderr)[-3000:]}")
    return ran.stdout


def shares_of(at: int, source: Path) -> dict[str, float]:
    """The share of every part in one call.

    Raises:
        SystemExit: perf failed; its words are in the message.
    """
    data = str(PLACE / "perf.data")
    paths = os.pathsep.join([str(source), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    code = f"{OURS}; import shares; shares.run({at})"
    child = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        if child.stdout is None or child.stdout.readline() != "ready\n":
            sys.exit("the call failed; its words are above")
        record = ["perf", "record", "-q", "-F", "2000", "-o", data, "-p", str(child.pid)]
        told(*record, "--", "sleep", str(SECONDS))
    finally:
        child.kill()
        child.wait()
    report = told("perf", "report", "-i", data, "--stdio", "-q", "--sort", "dso,symbol", "-t", "\t")
    shares: dict[str, float] = {}
    for line in report.splitlines():
        fields = [field.strip() for field in line.split("\t")]
        if len(fields) < 3 or not fields[0].endswith("%"):
            continue
        part = part_of(fields[1], re.sub(r"^\[.\] ", "", fields[2]))
        shares[part] = shares.get(part, 0.0) + float(fields[0][:-1])
    return shares


def main() -> None:
    """Profile every call, print a table, and keep it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="calls whose labels hold this text")
    parser.add_argument("--output", help="results file (a full run: benchmarks/results/)")
    asked = parser.parse_args()
    source = build()
    print(f"{machine_line()}; shares of the samples, in %\n")
    parts = [*PARTS, "loops", "torch and Python", "memory of the system"]
    print(
        f"| call | work | length | {' | '.join(parts)} |\n|{'---|' * (3 + len(parts))}", flush=True
    )
    rows = []
    for at, (name, work, length) in enumerate(CALLS):
        if asked.only not in f"{name} {work} {length}":
            continue
        shares = shares_of(at, source)
        row = {"call": name, "work": work, "length": length}
        row |= {part: f"{shares.get(part, 0.0):.0f} %" for part in parts}
        rows.append(row)
        print(f"| {' | '.join(str(value) for value in row.values())} |", flush=True)
    target = asked.output or (None if asked.only else RESULTS / "shares.json")
    if target:
        save(Path(target), rows)


if __name__ == "__main__":
    main()

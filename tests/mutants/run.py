"""Runs every mutant in a copy of the checkout: build, test, expect a failure, report.

    python tests/mutants/run.py [--jobs 2] [--only WORDS] [--output FILE]

The copy is compiled for the baseline instruction set alone, with little optimisation: a bug is
a bug in every instruction set. First the tests must pass without any bug. A mutant that does not
compile, and one whose place has gone, stop the run: they prove nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from mutants.catalogue import HOME, MUTANTS, Mutant  # noqa: E402

NEEDED = 24  # of every 25
LIMIT = 900  # seconds for one mutant's tests


@dataclass(frozen=True)
class Outcome:
    """What became of a mutant: killed, crashed, hung or survived; and how long it took."""

    mutant: Mutant
    end: str
    seconds: float


class Copy:
    """A copy of the checkout that can be built and tested by itself."""

    def __init__(self, place: Path) -> None:
        self.place = place
        shutil.rmtree(place, ignore_errors=True)  # a run that was stopped leaves a bug built in
        place.mkdir(parents=True)
        for name in ("src", "tests"):
            ignored = shutil.ignore_patterns("__pycache__", "_native*", "_build")
            shutil.copytree(ROOT / name, place / name, ignore=ignored)
        for name in ("CMakeLists.txt", "pyproject.toml", "README.md", "LICENSE"):
            shutil.copy2(ROOT / name, place / name)

    def build(self) -> None:
        """Compile the copy's kernels.

        Raises:
            RuntimeError: they do not compile; the compiler's words are in it.
        """
        launcher = shutil.which("ccache")
        settings = ["-DOGIVE_BASELINE_ONLY=ON", "-DOGIVE_OPTIMISE=-O1"]
        settings += [f"-DPython_EXECUTABLE={sys.executable}"]
        settings += [f"-DCMAKE_CXX_COMPILER_LAUNCHER={launcher}"] if launcher else []
        cmake = [sys.executable, "-m", "cmake"]
        for words in (
            [*cmake, "-S", str(self.place), "-B", str(self.place / "build"), *settings],
            [*cmake, "--build", str(self.place / "build")],
        ):
            ran = subprocess.run(words, capture_output=True, text=True, check=False)
            if ran.returncode:
                raise RuntimeError(f"does not compile:\n{(ran.stdout + ran.stderr)[-3000:]}")

    def test(self, tests: tuple[str, ...]) -> str:
        """`passed`, `killed` (a test failed), `crashed` or `hung`.

        Raises:
            RuntimeError: no test ran, or pytest itself failed.
        """
        words = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
        try:
            ran = subprocess.run(
                words,
                cwd=self.place,
                env={**os.environ, "PYTHONPATH": self._path(), "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=LIMIT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "hung"
        if ran.returncode == 1:
            return "killed"
        if ran.returncode == 0 and " passed" in ran.stdout:  # skipped tests prove nothing
            return "passed"
        if ran.returncode < 0:
            return "crashed"
        raise RuntimeError(f"pytest ended with {ran.returncode}:\n{ran.stdout[-3000:]}")

    def run(self, mutant: Mutant) -> Outcome:
        """Apply, build, test, and take back."""
        start = time.monotonic()
        file = self.place / HOME / mutant.file
        right = file.read_text()
        file.write_text(mutant.applied(right))
        try:
            if mutant.compiled:
                self.build()
            end = self.test(mutant.tests)
        finally:
            file.write_text(right)
        return Outcome(mutant, "survived" if end == "passed" else end, time.monotonic() - start)

    def _path(self) -> str:
        kept = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
        return os.pathsep.join([str(self.place / "src"), *kept])


def run_all(mutants: list[Mutant], jobs: int) -> list[Outcome]:
    """Every mutant, those in Python first: they need the module without a bug."""
    copies = [Copy(ROOT / "build" / "mutants" / str(at)) for at in range(jobs)]
    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(Copy.build, copies))
    for tests in sorted({mutant.tests for mutant in mutants}):
        end = copies[0].test(tests)
        if end != "passed":
            sys.exit(f"without any bug the tests {' '.join(tests)} {end}: they prove nothing")
    print(f"without any bug the tests pass; {len(mutants)} mutants, {jobs} at a time\n")
    print("| bug | in | end | s |\n|---|---|---|---|", flush=True)
    free: queue.SimpleQueue[Copy] = queue.SimpleQueue()
    for copy in copies:
        free.put(copy)

    def one(mutant: Mutant) -> Outcome:
        copy = free.get()
        try:
            outcome = copy.run(mutant)
        finally:
            free.put(copy)
        print(
            f"| {mutant.name} | {mutant.file} | {outcome.end} | {outcome.seconds:.0f} |", flush=True
        )
        return outcome

    outcomes = []
    for compiled in (False, True):
        with ThreadPoolExecutor(jobs) as pool:
            outcomes += pool.map(one, [m for m in mutants if m.compiled == compiled])
    return outcomes


def told(outcomes: list[Outcome]) -> bool:
    """Print how many were killed, and whether that is enough."""
    survivors = [o.mutant for o in outcomes if o.end == "survived"]
    killed = len(outcomes) - len(survivors)
    print(f"\n{killed} of {len(outcomes)} killed")
    for mutant in survivors:
        print(f"survived: {mutant.name}: {mutant.survives or 'NO REASON IS WRITTEN'}")
    return killed * 25 >= NEEDED * len(outcomes) and all(m.survives for m in survivors)


def main() -> None:
    """Run what is asked for; exit 1 where too many survive, or one without a reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="copies at work (2)")
    parser.add_argument("--only", default="", help="mutants whose name or file holds this")
    parser.add_argument("--output", type=Path, help="write the outcomes as JSON")
    asked = parser.parse_args()
    chosen = [m for m in MUTANTS if asked.only in f"{m.name} {m.file}"]
    for mutant in chosen:
        mutant.applied((ROOT / HOME / mutant.file).read_text())
    start = time.monotonic()
    outcomes = run_all(chosen, asked.jobs)
    enough = told(outcomes)
    if asked.output:
        rows = [{"bug": o.mutant.name, "file": o.mutant.file, "end": o.end} for o in outcomes]
        rows = [{**r, "survives": o.mutant.survives} for r, o in zip(rows, outcomes, strict=True)]
        asked.output.write_text(json.dumps(rows, indent=1) + "\n")
    print(f"{(time.monotonic() - start) / 60:.1f} min")
    sys.exit(not enough)


if __name__ == "__main__":
    main()

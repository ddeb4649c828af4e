"""What every benchmark shares: races in tables, results in files, memory in fresh processes.

A script yields `Case`s (a labelled race) and `MemoryCase`s, and hands them to `main`:

    def cases(asked):  # called once for each number of threads
        yield Case({"length": 512}, {"ogive": run_ours, "eager": run_theirs}, operations=4e9)

    if __name__ == "__main__":
        main(__doc__, cases)

Every script then takes --quick, --rounds, --threads, --isa, --output and --only. The first
contender is ours: the ratio columns say how many times as fast as each other it is. A contender
whose name ends in "(…)" computes something else, as F.sdpa (softmax) beside tanh does; a test
holds the others to one answer.
"""

from __future__ import annotations

import argparse
import datetime
import json
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
_RESTRICTED = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}

_NARROW = ("--isa", "avx2") in zip(sys.argv, sys.argv[1:], strict=False)
if _NARROW:
    os.environ.update(_RESTRICTED)  # torch chooses its instructions while it is imported

import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from ogive.kernels import compiled  # noqa: E402
from ogive.lab.bench import forward, operations, training  # noqa: E402
from ogive.lab.machine import environment  # noqa: E402
from ogive.lab.races import Contender, Race, Spread, race  # noqa: E402

__all__ = [
    "Asked",
    "Case",
    "Contender",
    "MemoryCase",
    "compiled_peer",
    "forward",
    "main",
    "operations",
    "peak_memory",
    "training",
]
Labels = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One race.

    Attributes:
        labels: what tells this row from the others; the keys are the table's columns.
        contenders: name → a call without arguments; the first one is ours.
        operations: useful floating-point operations of a call, for the share of peak; None: no
            share is told. A causal call counts half.
    """

    labels: Labels
    contenders: dict[str, Contender]
    operations: float | None = None


@dataclass(frozen=True)
class MemoryCase:
    """The peak memory of one call in a fresh process.

    Attributes:
        labels: as in `Case`.
        contender: its name.
        make: a function at the top of the script's module, called in the new process with
            `arguments`; makes the inputs and returns the call to measure.
        arguments: what can be sent to another process.
        small: arguments of a call like it that takes next to nothing. It runs first, so that what
            libraries load on their first use is not counted.
    """

    labels: Labels
    contender: str
    make: Callable[..., Contender]
    arguments: tuple[Any, ...]
    small: tuple[Any, ...]


@dataclass
class Asked:
    """What the command line asked for.

    Attributes:
        quick: a minute in place of an hour.
        rounds: turns of each contender.
        threads: of the cases being made now.
    """

    quick: bool
    rounds: int
    threads: int = 1
    only: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def lengths(self, *whole: int, quick: tuple[int, ...] = (128, 512)) -> tuple[int, ...]:
        """The lengths of a full run, or those of a quick one."""
        return quick if self.quick else whole


# --- contenders ---------------------------------------------------------------------------------


def compiled_peer(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The function under torch.compile, for static shapes and the threads of this moment.

    Its code is restricted to the instructions asked for as torch's own is, which takes a setting.
    """
    options = {"cpp.simdlen": 256} if _NARROW else None
    return torch.compile(run, fullgraph=True, dynamic=False, options=options)


# --- memory -------------------------------------------------------------------------------------


def peak_memory(
    make: Callable[..., Contender],
    arguments: tuple[Any, ...],
    small: tuple[Any, ...],
    threads: int = 1,
) -> float:
    """Bytes that a call takes at its peak over what the process held before it.

    A new process makes the inputs, and the peak of its resident memory is read from the system. It
    may take half of what is free, so that other processes never pay for a contender's appetite.

    Raises:
        MemoryError: the call does not fit.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    worker = context.Process(target=_measure, args=(sender, make, arguments, small, threads))
    worker.start()
    sender.close()
    try:
        answer = receiver.recv()
    finally:
        worker.join()
    if isinstance(answer, str):
        raise MemoryError(answer)
    return answer


def _measure(
    sender: Any, make: Callable[..., Contender], arguments: tuple, small: tuple, threads: int
) -> None:
    torch.set_num_threads(threads)
    make(*small)()
    call = make(*arguments)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts from what is held now
    before = _told("/proc/self/status", "VmRSS")
    room = _told("/proc/self/status", "VmSize") + _told("/proc/meminfo", "MemAvailable") // 2
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    try:
        result = call()
    except (RuntimeError, MemoryError) as error:
        if "memory" not in str(error).lower() and not isinstance(error, MemoryError):
            raise
        sender.send(f"{make.__name__}{arguments} does not fit: {error}")
        return
    sender.send(max(0, _told("/proc/self/status", "VmHWM") - before))
    del result


def _told(place: str, name: str) -> int:
    """Bytes that a file of the system gives in kB."""
    for line in Path(place).read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise OSError(f"{place} tells no {name}")


# --- tables -------------------------------------------------------------------------------------


def machine_line() -> str:
    """The processor, the instruction sets in use, and versions."""
    known = environment()
    return (
        f"{known['processor']} ({os.cpu_count()} cores), Ogive {compiled.instruction_set}, "
        f"torch {known['torch']} {known['vectors']}, Python {known['python']}"
    )


def copy_rate() -> float:
    """Bytes read and written per second on one thread, of arrays that no cache holds."""
    torch.set_num_threads(1)
    source = torch.ones(2**26)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(5):
        start = time.process_time()
        target.copy_(source)
        best = max(best, 2 * 4 * source.numel() / (time.process_time() - start))
    return best


class _Printer:
    """Rows as they come; a new head where the labels change."""

    def __init__(self) -> None:
        self.head: list[str] = []

    def row(self, cells: dict[str, str]) -> None:
        if list(cells) != self.head:
            self.head = list(cells)
            print(f"\n| {' | '.join(self.head)} |\n|{'---|' * len(self.head)}", flush=True)
        print(f"| {' | '.join(cells.values())} |", flush=True)


def _milliseconds(spread: Spread) -> str:
    return f"{1e3 * spread.middle:.3g} ({1e3 * spread.low:.3g} to {1e3 * spread.high:.3g})"


def _rows(case: Case, found: Race) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    ours = next(iter(case.contenders))
    for name in case.contenders:
        took, ratio = found.time(name), found.ratio(ours, name)
        share = found.share(name, case.operations) if case.operations else None
        kept = {
            "threads": found.threads,
            **case.labels,
            "contender": name,
            "ms": [round(1e3 * x, 6) for x in (took.low, took.middle, took.high)],
            "ratio": [round(x, 4) for x in (ratio.low, ratio.middle, ratio.high)],
            "share": None if share is None else round(share, 4),
            "peak_gflops": round(found.peak / 1e9, 2),
        }
        shown = {
            "threads": str(found.threads),
            **{key: str(value) for key, value in case.labels.items()},
            "contender": name,
            "ms (quartiles)": _milliseconds(took),
            "ours is × as fast": f"{ratio.middle:.2f} ({ratio.low:.2f} to {ratio.high:.2f})",
        }
        if case.operations:
            shown["of peak"] = f"{100 * (share or 0):.0f} %"
        yield kept, shown


def _memory_row(case: MemoryCase, threads: int) -> tuple[dict[str, Any], dict[str, str]]:
    try:
        taken: float | None = peak_memory(case.make, case.arguments, case.small, threads)
    except MemoryError:
        taken = None
    labels = {"threads": threads, **case.labels, "contender": case.contender}
    told = "does not fit" if taken is None else f"{taken / 2**20:.1f}"
    return (
        {**labels, "mib": None if taken is None else round(taken / 2**20, 2)},
        {**{key: str(value) for key, value in labels.items()}, "extra MiB at the peak": told},
    )


# --- the command --------------------------------------------------------------------------------


def main(
    about: str | None, cases: Callable[[Asked], Iterable[Case | MemoryCase]], name: str = ""
) -> list[dict[str, Any]]:
    """Run a script's cases as the command line asks, print tables, keep and return the results."""
    name = name or Path(sys.argv[0]).stem
    options = _options((about or name).splitlines()[0])
    asked = Asked(options.quick, options.rounds or (3 if options.quick else 11), only=options.only)
    if options.isa:
        compiled.instruction_set = _known_set(options.isa)
    print(f"{machine_line()}; {asked.rounds} rounds, interleaved", flush=True)
    printer = _Printer()
    for asked.threads in [int(text) for text in options.threads.split(",")]:
        torch.set_num_threads(asked.threads)
        torch.compiler.reset()  # compiled code has its number of threads written into it
        for case in cases(asked):
            if asked.only in " ".join(str(value) for value in case.labels.values()):
                for kept, shown in _run(case, asked):
                    asked.rows.append(kept)
                    printer.row(shown)
            torch.compiler.reset()  # it compiles eight forms of one function, and no more
    target = options.output or (None if options.quick or options.only else RESULTS / f"{name}.json")
    if target:
        save(Path(target), asked.rows)
    return asked.rows


def _run(case: Case | MemoryCase, asked: Asked) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if isinstance(case, MemoryCase):
        return [_memory_row(case, asked.threads)]
    return list(_rows(case, race(case.contenders, rounds=asked.rounds)))


def save(target: Path, rows: list[dict[str, Any]]) -> None:
    """Rows with the machine that made them, written beside the target and moved there."""
    words = list(sys.argv[1:])
    if "--output" in words:  # where it was written is nobody's business
        at = words.index("--output")
        del words[at : at + 2]
    kept: dict[str, Any] = {
        "command": f"python benchmarks/{Path(sys.argv[0]).name} {' '.join(words)}".strip(),
        "date": datetime.date.today().isoformat(),
        "machine": {
            **environment(),
            "instruction_set": compiled.instruction_set,
            "copy_gb_per_s": round(copy_rate() / 1e9, 1),
        },
        "rows": rows,
    }
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = target.with_suffix(".tmp")
    with fresh.open("w") as file:
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
        head = json.dumps({k: v for k, v in kept.items() if k != "rows"}, indent=1)
        file.write(f'{head[:-2]},\n "rows": [\n{lines}\n ]\n}}\n')
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(target)
    print(f"\n{target}")


def _options(about: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--quick", action="store_true", help="few shapes and rounds: a minute")
    parser.add_argument("--rounds", type=int, help="turns of each contender (11; quick: 3)")
    parser.add_argument("--threads", default="1,2", help="numbers of threads (1,2)")
    parser.add_argument("--isa", help="baseline, avx2 or avx512; avx2 restricts torch as well")
    parser.add_argument("--only", default="", help="cases whose labels hold this text")
    parser.add_argument("--output", help="results file (a full run: benchmarks/results/)")
    return parser.parse_args()


def _known_set(name: str) -> str:
    if name not in compiled.supported():
        sys.exit(f"--isa {name} is not here (here are {', '.join(compiled.supported())})")
    return name

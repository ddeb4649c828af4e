"""Races: contenders take turns, so that a busy moment of the machine meets them all.

What is compared is the ratio within each round, and what is told is its median with quartiles. A
chain of multiply-adds on registers takes its turn too: a contender's rate over the chain's is its
share of what this processor can compute, whatever its clock did meanwhile.
"""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from ogive.errors import ArgumentError
from ogive.kernels import compiled

Contender = Callable[[], object]
PEAK = "multiply-adds"
"""The name of the probe among the timings."""
_TURN = 2e-3  # seconds that a turn takes at least: a short call is repeated
_STEPS = 40_000  # of the probe, a few tenths of a millisecond


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, numbers: list[float]) -> Spread:
        """Of one number or more."""
        if len(numbers) == 1:
            return cls(numbers[0], numbers[0], numbers[0])
        return cls(*statistics.quantiles(numbers, n=4, method="inclusive"))


@dataclass(frozen=True)
class Race:
    """What a race gave: seconds of each contender in each round, and the probe's rate.

    Attributes:
        seconds: name → seconds of one call, round by round, in the order of the contenders.
        peak: multiply-adds counted as two operations, per second, best round; 0 without kernels.
        threads: how many torch used.
    """

    seconds: dict[str, list[float]]
    peak: float
    threads: int

    def time(self, name: str) -> Spread:
        """Seconds of one call."""
        return Spread.of(self.seconds[name])

    def ratio(self, ours: str, theirs: str) -> Spread:
        """How many times as fast as `theirs` `ours` is, round by round."""
        pairs = zip(self.seconds[theirs], self.seconds[ours], strict=True)
        return Spread.of([one / two for one, two in pairs])

    def share(self, name: str, operations: float) -> float:
        """The part of the probe's rate at which `name` does its useful operations."""
        return operations / self.time(name).middle / self.peak if self.peak else math.nan


def race(contenders: Mapping[str, Contender], *, rounds: int = 11) -> Race:
    """Let contenders take turns, the first not counted, with the number of threads torch has now.

    On one thread the processor's time is counted, which other processes do not add to; on several
    the wall's.

    Raises:
        ArgumentError: no contender, or fewer than one round.
    """
    if not contenders or rounds < 1:
        came = f"{len(contenders)} contenders and {rounds} rounds"
        raise ArgumentError(f"a race takes at least a contender and a round, not {came}")
    threads = torch.get_num_threads()
    clock = time.process_time if threads == 1 else time.perf_counter
    repeats = {name: _repeats(run) for name, run in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    peak = 0.0
    with _no_collection():
        for name, run in contenders.items():  # after a collection the caches are cold
            _turn(run, repeats[name], clock)
        for turn in range(rounds):
            order = list(contenders)[:: 1 if turn % 2 == 0 else -1]
            for name in order:
                seconds[name].append(_turn(contenders[name], repeats[name], clock))
            peak = max(peak, probe(threads, clock))
    return Race(seconds, peak, threads)


def probe(threads: int, clock: Callable[[], float] = time.perf_counter) -> float:
    """Operations per second of multiply-adds on registers, best of three; 0 without kernels."""
    if compiled.missing:
        return 0.0
    best = 0.0
    for _ in range(3):
        start = clock()
        done = compiled.multiply_adds(_STEPS, threads)
        best = max(best, done / max(clock() - start, 1e-9))
    return best


def _turn(run: Contender, times: int, clock: Callable[[], float]) -> float:
    """Seconds of one of so many calls."""
    start = clock()
    for _ in range(times):
        run()
    return (clock() - start) / times


def _repeats(run: Contender) -> int:
    """Warm up, and say how many calls fill a turn."""
    run()
    start = time.perf_counter()
    run()
    taken = time.perf_counter() - start
    if taken >= _TURN:
        return 1
    start = time.perf_counter()
    for _ in range(5):
        run()
    return max(1, math.ceil(_TURN / max((time.perf_counter() - start) / 5, 1e-7)))


@contextmanager
def _no_collection() -> Iterator[None]:
    gc.collect()
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()

"""One deterministic sample of a grid too large for every run; OGIVE_TEST_ALL=1 runs it whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from typing import TypeVar

Case = TypeVar("Case")


def sampled(cases: Iterable[Case], keep: int, salt: str = "") -> list[Case]:
    """At most `keep` of the cases, the same ones on every machine and in every worker.

    Cases are chosen by a hash of their repr, so adding one leaves the choice of the others (nearly)
    alone. Where a case is a tuple, cases that show a value for the first time come first: every
    value of every axis is tried as long as `keep` allows.

    Args:
        cases: the grid, in the order in which it is to run.
        keep: how many cases an everyday run takes.
        salt: makes two grids of the same cases choose differently.

    Raises:
        ValueError: `keep` is not positive, the grid is empty, or a repr shows an address and
            would differ from run to run.
    """
    grid = list(cases)
    if keep < 1 or not grid:
        raise ValueError(f"a sample of {keep} out of {len(grid)} cases tests nothing")
    if os.environ.get("OGIVE_TEST_ALL") == "1" or len(grid) <= keep:
        return grid
    order = sorted(range(len(grid)), key=lambda index: _digest(grid[index], salt))
    seen: set[tuple[int, str]] = set()
    first: list[int] = []
    rest: list[int] = []
    for index in order:
        values = _values(grid[index])
        (rest if values <= seen else first).append(index)
        seen |= values
    return [grid[index] for index in sorted((first + rest)[:keep])]


def _digest(case: object, salt: str) -> bytes:
    text = repr(case)
    if " at 0x" in text:
        raise ValueError(f"this case's repr holds an address, so no sample is stable: {text}")
    return hashlib.sha256(f"{salt}|{text}".encode()).digest()


def _values(case: object) -> set[tuple[int, str]]:
    return (
        {(place, repr(value)) for place, value in enumerate(case)}
        if isinstance(case, tuple)
        else set()
    )

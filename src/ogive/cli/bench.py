"""`ogive bench`: this machine, ours beside PyTorch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ogive.cli.paper import say

if TYPE_CHECKING:
    from ogive.lab.bench import Line

COLUMNS = {
    "weight": "<9",
    "mask": "<8",
    "length": ">6",
    "pass": "<9",
    "auto ran": "<10",
    "ms": ">8",
    "peer": "<6",
    "its ms": ">8",
    "faster": ">8",
    "of peak": ">8",
}
"""Headings with the width and side of their cells: rows are printed as they are measured."""


def bench(
    length: Annotated[
        list[int] | None, typer.Option(min=1, help="Queries and keys; may be given again.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Default: torch's own number.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns that each contender takes.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """How fast attention is on this machine: ours beside PyTorch, in one run.

    Softmax races torch's scaled_dot_product_attention, other weight functions race eager code.
    Contenders take turns; "faster" is the median over rounds of their time over ours.
    """
    import torch

    from ogive.lab.bench import LENGTHS, bench, machine

    lines = bench(length or LENGTHS, rounds=rounds, threads=threads)
    here = machine(threads or torch.get_num_threads())
    if as_json:
        found = [line.as_dict() for line in lines]
        print(json.dumps({"machine": here, "lines": found}, indent=2))
        return
    say(_machine(here))
    say("Batch 1, 8 heads, width 64, float32.")
    print(_row(list(COLUMNS)), flush=True)
    for line in lines:
        print(_row(_cells(line)), flush=True)


def _machine(here: dict[str, Any]) -> str:
    threads = f"{here['threads']} thread{'' if here['threads'] == 1 else 's'}"
    if here["missing"]:
        return f"{here['processor']}, {threads}, torch {here['torch']}. {here['missing']}"
    return (
        f"{here['processor']}, {threads}, torch {here['torch']}; our kernels use "
        f"{here['instruction_set']}, whose multiply-adds reach {here['peak_gflops']:g} GFLOP/s."
    )


def _row(cells: list[str]) -> str:
    return " ".join(f"{cell:{how}}" for cell, how in zip(cells, COLUMNS.values(), strict=True))


def _cells(line: Line) -> list[str]:
    return [
        line.weight,
        line.mask,
        str(line.length),
        line.work,
        line.impl,
        f"{line.ours_ms:.3g}",
        line.peer,
        f"{line.peer_ms:.3g}",
        f"{line.ratio[1]:.2f} ×",
        "" if line.share is None else f"{100 * line.share:.0f} %",
    ]

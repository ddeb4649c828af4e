"""How long attention takes: ours (auto, reference) beside torch's operation and plain eager code.

    python benchmarks/attention.py [--rounds 15] [--lengths 128,512,1024]

The contenders take turns, A B C D A B C D …, so that a busy moment of the machine meets them all;
shown are medians in milliseconds with the quartiles of the rounds, for the forward pass alone and
with the backward pass, on one thread and on two.
"""

from __future__ import annotations

import argparse
import math
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

import ogive

Run = Callable[[Tensor, Tensor, Tensor], Tensor]


def eager(weight: str) -> Run:
    """What a user writes in place of SDPA: causal, mask after the weight function."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        scores = q @ k.mT / math.sqrt(q.shape[-1])
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
        if weight == "softmax":
            return scores.masked_fill(~seen, -torch.inf).softmax(-1) @ v
        return (scores.tanh() / seen.sum(-1, keepdim=True)).masked_fill(~seen, 0) @ v

    return run


def ours(weight: str, impl: str) -> Run:
    """Ogive's operation by one implementation."""
    return lambda q, k, v: ogive.attention(q, k, v, weight=weight, is_causal=True, impl=impl)


def contenders(weight: str) -> dict[str, Run]:
    """By name; torch's own operation has no weight but softmax."""
    found = {"ogive auto": ours(weight, "auto"), "ogive reference": ours(weight, "reference")}
    if weight == "softmax":
        found["F.sdpa"] = lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return found | {"plain eager": eager(weight)}


def once(run: Run, tensors: list[Tensor], backward: bool) -> float:
    """Milliseconds of one call."""
    leaves = [t.detach().requires_grad_(backward) for t in tensors]
    start = time.perf_counter()
    out = run(*leaves)
    if backward:
        out.backward(torch.ones_like(out))
    return 1e3 * (time.perf_counter() - start)


def race(weight: str, length: int, backward: bool, rounds: int) -> None:
    """One table's rows: every contender in turn, `rounds` times after two to warm up."""
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, 8, length, 64, generator=draw) for _ in range(3)]
    runs = contenders(weight)
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 2):
        for name, run in runs.items():
            taken = once(run, tensors, backward)
            if turn >= 2:
                times[name].append(taken)
    base = statistics.median(times["plain eager"])
    for name, taken in times.items():
        low, middle, high = statistics.quantiles(taken, n=4)
        what = "forward + backward" if backward else "forward"
        print(
            f"| {torch.get_num_threads()} | {weight} | {length} | {what} | {name} "
            f"| {middle:.2f} | {low:.2f} to {high:.2f} | {middle / base:.2f} |"
        )


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--lengths", default="128,512,1024")
    asked = parser.parse_args()
    cpu = torch.backends.cpu.get_cpu_capability()
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {cpu}, float32,")
    print(f"batch 1, 8 heads, width 64, causal; {asked.rounds} rounds, interleaved\n")
    print("| threads | weight | length | pass | contender | median ms | quartiles | × eager |")
    print("|---|---|---|---|---|---|---|---|")
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for weight in ("softmax", "tanh"):
            for length in (int(text) for text in asked.lengths.split(",")):
                for backward in (False, True):
                    race(weight, length, backward, asked.rounds)


if __name__ == "__main__":
    main()

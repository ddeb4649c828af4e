"""Does "auto" take the fastest implementation that it could?

    python benchmarks/auto.py [--quick] [--only softmax]

Batch 1, 8 heads, width 64, float32 (additive scores: 4 heads of 32). Beside "auto" stand the
implementations that could run the same call, by name; torch's own softmax comes with the guards of
this library around it. A call is never faster than the best of them by choice alone, so what is
lost is read off the smallest ratio of a call: the last lines say which those are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from harness import Asked, Case, forward, main, training
from torch import Tensor

from ogive.errors import OgiveError
from ogive.kernels import AuxRequest, attention, last_impl
from ogive.parts import ElementwiseWeight, Sizes, score_from

LENGTHS = ((1, 64), (1, 1024), (16, 16), (16, 1024), (40, 4096), (64, 64), (256, 256), (1024, 1024))
IMPLS = ("native", "sdpa", "reference")
MOST_PAIRS = 2**20
"""Beyond, the definition is left out: it takes seconds."""


class Steep(ElementwiseWeight, listed=False):
    """A weight function that no kernel knows: w = σ(2s) / n."""

    name = "steep"

    def value(self, scores: Tensor, n: Tensor) -> Tensor:
        """What the weights of visible pairs are."""
        return torch.sigmoid(2 * scores) / n


def shape_of(score: str) -> tuple[int, int]:
    """Heads and width."""
    return (8, 64) if score == "dot" else (4, 32)


def drawn(score: str, queries: int, keys: int) -> list[Tensor]:
    """query, key and value."""
    draw = torch.Generator().manual_seed(0)
    heads, width = shape_of(score)
    return [torch.randn(1, heads, n, width, generator=draw) for n in (queries, keys, keys)]


def options_of(kind: str, queries: int, keys: int) -> dict[str, Any]:
    """Arguments of `attention` for a kind of call, written "score weight extra"."""
    score, weight, extra = kind.split()
    heads, width = shape_of(score)
    draw = torch.Generator().manual_seed(1)
    extras: dict[str, dict[str, Any]] = {
        "-": {},
        "mask": {"attn_mask": torch.rand(queries, keys, generator=draw) < 0.7},
        "bias": {"attn_bias": torch.randn(queries, keys, generator=draw)},
        "dropout": {"dropout_p": 0.1},
        "lse": {"return_aux": AuxRequest(lse=True)},
        "entropy": {"return_aux": AuxRequest(entropy=True)},
    }
    return {
        "score": score_from(score).setup(Sizes(heads * width, heads, width)),
        "weight": Steep() if weight == "steep" else weight,
        **extras[extra],
    }


KINDS = (
    *(f"dot softmax {extra}" for extra in ("-", "mask", "bias", "dropout", "lse")),
    *(f"dot tanh {extra}" for extra in ("-", "mask", "lse", "entropy")),
    "dot sigmoid(bias=-log_n) -",
    "dot entmax15 -",
    "distance(power=1) softmax -",
    *(f"additive(tanh) softmax {extra}" for extra in ("-", "lse", "entropy")),
    "dot steep -",
)


def runs(kind: str, queries: int, keys: int, graded: bool) -> dict[str, Callable[..., Tensor]]:
    """What "auto" takes and what else could run a call, as functions of query, key and value."""
    tensors, options = drawn(kind.split()[0], queries, keys), options_of(kind, queries, keys)
    tensors = [tensor.requires_grad_(graded) for tensor in tensors]

    def by(impl: str) -> Callable[..., Tensor]:
        def run(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            if kind.endswith("dropout"):
                torch.manual_seed(0)  # every contender drops the same weights
            found = attention(query, key, value, impl=impl, **options)
            return found if isinstance(found, Tensor) else found[0]

        return run

    by("auto")(*tensors)
    found = {f"auto ({last_impl()})": by("auto")}
    features = 1 if kind.startswith(("dot", "distance")) else shape_of(kind.split()[0])[1]
    for impl in IMPLS:
        if impl == "reference" and queries * keys * features > MOST_PAIRS:
            continue
        try:
            by(impl)(*tensors)
        except OgiveError:
            continue
        found[impl] = by(impl)
    return found


def cases(asked: Asked) -> Iterator[Case]:
    """Every kind at every pair of lengths, forward and with gradients."""
    lengths = ((1, 64), (64, 64)) if asked.quick else LENGTHS
    for kind in KINDS:
        for queries, keys in lengths:
            for work, make in (("forward", forward), ("training", training)):
                tensors = drawn(kind.split()[0], queries, keys)
                found = runs(kind, queries, keys, graded=work == "training")
                labels = {"call": kind, "queries": queries, "keys": keys, "work": work}
                yield Case(labels, {name: make(run, *tensors) for name, run in found.items()})


def worst(rows: list[dict[str, Any]]) -> str:
    """The calls in which another implementation was clearly faster than what "auto" took."""
    best: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: -row["ratio"][1]):
        if row["ratio"][2] < 0.95 and not row["contender"].startswith("auto"):
            best[row["call"], row["queries"], row["keys"], row["work"], row["threads"]] = row
    lost = list(best.values())
    said = [
        f"{row['call']}, {row['queries']} × {row['keys']}, {row['work']}, {row['threads']} "
        f"threads: {row['contender']} takes {row['ratio'][1]:.2f} of its time"
        for row in sorted(lost, key=lambda row: row["ratio"][1])
    ]
    races = sum(row["contender"].startswith("auto") for row in rows)
    return "\n".join([f'\n"auto" was clearly slower in {len(lost)} of {races} calls', *said])


if __name__ == "__main__":
    print(worst(main(__doc__, cases)))

"""How fast activations of whole tensors are, forward and with their slopes, beside torch's own.

    python benchmarks/maps.py [--quick] [--isa avx2] [--only tanh]

Sizes are numbers in a tensor: 2¹³ is the least that layers give to our kernels, 2¹⁸ one head's
queries at length 4096, 2²¹ all of eight heads'.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from harness import Asked, Case, forward, main, training

from ogive.kernels.map_library import DEFINITIONS, apply

SIZES = (1 << 13, 1 << 16, 1 << 18, 1 << 21)


def cases(asked: Asked) -> Iterator[Case]:
    """Every map with a kernel, at every size."""
    for name, torchs in DEFINITIONS.items():
        for size in asked.lengths(*SIZES, quick=(1 << 13,)):
            x = 2 * torch.randn(size, generator=torch.Generator().manual_seed(0))
            for work, make in (("forward", forward), ("training", training)):
                runs = {"ogive": lambda x, name=name: apply(x, name), "torch": torchs}
                yield Case(
                    {"map": name, "work": work, "numbers": size},
                    {peer: make(run, x) for peer, run in runs.items()},
                )


if __name__ == "__main__":
    main(__doc__, cases)

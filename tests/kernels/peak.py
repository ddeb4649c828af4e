"""The most memory that a call takes, forward and backward, in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from kernels import children

CHILD = """
import json
from kernels import peak
print(peak.measure(**json.loads(sys.argv[1])))
"""


def over_baseline(**asked: Any) -> int:
    """Bytes by which a fresh process's peak grows while it computes out and gradients.

    Args:
        asked: `length`; "own": true for a weight and a score that a test defines; `score`, whose
            parameters are drawn for it; `asks`, statistics that are wanted; what is left goes to
            `attention`.
    """
    if children.sanitizer():  # 256 MB of what was freed, by default
        pytest.skip(
            f"the allocator of {children.sanitizer()} keeps what is freed: peaks tell nothing"
        )
    environment = dict(os.environ, OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    command = [sys.executable, "-c", children.here() + CHILD, json.dumps(asked)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def _peak() -> int:
    """Of this program; what getrusage tells began with the process that started it, on Linux."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def measure(
    length: int, own: bool = False, score: str = "dot", asks: Sequence[str] = (), **options: Any
) -> int:
    """`over_baseline` in this process."""
    import torch
    from torch import Tensor

    from kernels import own_parts
    from ogive.kernels import AuxRequest, attention
    from ogive.parts import Sizes, score_from

    options["score"] = score_from(score).setup(Sizes(16, 1, 16))

    if asks:
        options["return_aux"] = AuxRequest(**dict.fromkeys(asks, True))
    if own:
        options |= {"weight": own_parts.Steep(), "score": own_parts.Manhattan()}

    def run(queries: int) -> None:
        tensors = [torch.randn(1, 1, queries, 16, requires_grad=True) for _ in range(3)]
        found = attention(*tensors, **options)
        made = [found] if isinstance(found, Tensor) else [found[0], *found[1]]
        sum(t.sum() for t in made if t is not None).backward()

    torch.set_num_threads(1)
    run(64)  # what is loaded once is not counted
    before = _peak()
    run(length)
    return _peak() - before

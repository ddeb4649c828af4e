"""T13: torch.compile. One graph, few recompilations, and R1 against float64."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("compile_checks.py")


CHECKS = (
    "one_graph",
    "inductor",
    "halves",
    "ten_lengths",
    "special_values",
    "kernels",
    "transforms",
    "fused_sums",
    "chosen_rows",
    "one_tensor",
    "compiled_maps",
)


@pytest.mark.parametrize("check", CHECKS)
def test_compiled(check, count):
    done = subprocess.run(
        [sys.executable, SCRIPT, check],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    count("T13", int(done.stdout.split("held ")[1]))

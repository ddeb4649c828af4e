"""The examples run as a reader would run them; the long ones where every case runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
ALL = os.environ.get("OGIVE_TEST_ALL") == "1"
# What each prints when it went well, and whether it is quick enough for every run.
RUNS = {
    "new_weight.py": ((), "", False),  # tests/parts runs it
    "swap_one_layer.py": ((), "ogive.MultiheadAttention", True),
    "translation.py": ((), "Dienstag, 4. März 2025       2025-03-04", False),
    "huggingface_sigmoid.py": ((), "attends by ogive:weight=sigmoid(bias=-log_n)", False),
    "pyg_score.py": ((), "the same weights in Ogive", False),
    "gated_gpt.py": (TORCHRUN, "held out, 2 processes:", False),
}


def run(name: str) -> str:
    before, _, _ = RUNS[name]
    # One thread a process, no network, and warnings that a reader would see are errors.
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, *before, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        env=env,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_example_is_run_here():
    assert {path.name for path in EXAMPLES.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_it_runs(name):
    _, says, quick = RUNS[name]
    if not (quick or ALL):
        pytest.skip("runs with every case: make test-all")
    assert says in run(name)


@pytest.mark.skipif(not ALL, reason="runs with every case: make test-all")
def test_two_processes_come_to_the_model_of_one():
    def score(text: str) -> float:
        (line,) = [line for line in text.splitlines() if line.startswith("held out")]
        return float(line.split(": ")[1].split()[0])

    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    alone = subprocess.run(
        [sys.executable, str(EXAMPLES / "gated_gpt.py")],
        capture_output=True,
        text=True,
        env=env,
        check=True,
    )
    assert score(alone.stdout) == pytest.approx(score(run("gated_gpt.py")), abs=0.05)

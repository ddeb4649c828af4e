"""The command as a user runs it: a process of its own, in a folder of its own."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

MINIATURE = """
from ogive.lab import Study

study = Study(
    name="miniature",
    question="Does it run?",
    variants={"gelu on value": "value=gelu", "rmsnorm on value": "value=rmsnorm"},
    controls=("rmsnorm on value",),
    seeds=2,
    learning_rates=(1e-3, 3e-3),
    extra_rungs=0,
    model={"width": 16, "depth": 1, "heads": 2, "hidden": 32},
    train={"steps": STEPS, "batch": 4, "warmup": 2, "evaluations": 1},
    task_options={"text": {"length": 16, "windows": 16}},
)
quick = study.replace(name="miniature-quick", seeds=2, learning_rates=(3e-3,), quick=True)
"""
TRIALS = 12  # three arms: two rungs each, two seeds each


def environment(**changes: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key != "OGIVE_RUNS"}
    return {**kept, "OMP_NUM_THREADS": "1", "COLUMNS": "100", **changes}


def ogive(*words: str, folder: Path, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run `ogive WORDS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "ogive", *words],
        cwd=folder,
        env=environment(**changes),
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )


def begin(*words: str, folder: Path) -> subprocess.Popen[str]:
    """Start `ogive WORDS` and come back at once."""
    return subprocess.Popen(
        [sys.executable, "-m", "ogive", *words],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end_when(running: subprocess.Popen[str], store: Path, done: int, number: int) -> tuple:
    """Send a signal once so many trials are done; returns exit code, stdout, stderr, seconds."""
    deadline = time.monotonic() + 120
    while count_done(store) < done:
        assert running.poll() is None, f"it ended before {done} trials were done"
        assert time.monotonic() < deadline, f"{done} trials took more than two minutes"
        time.sleep(0.02)
    running.send_signal(number)
    sent = time.monotonic()
    out, err = running.communicate(timeout=60)
    return running.returncode, out, err, time.monotonic() - sent


def count_done(store: Path) -> int:
    if not store.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
            query = "SELECT count(*) FROM trials WHERE state = 'done'"
            return connection.execute(query).fetchone()[0]
    except sqlite3.OperationalError:  # its tables are being made
        return 0


def trials(store: Path) -> dict[str, tuple]:
    """Every trial of a store: id → everything that a second run must not touch."""
    with sqlite3.connect(f"file:{store}?mode=ro", uri=True) as connection:
        query = "SELECT id, state, token, started, finished, result FROM trials"
        return {line[0]: line[1:] for line in connection.execute(query)}


def write_miniature(folder: Path, steps: int = 8) -> Path:
    path = folder / "miniature.py"
    path.write_text(MINIATURE.replace("STEPS", str(steps)))
    return path

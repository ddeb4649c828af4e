"""Verbs that only read never load torch, and those that wait for nothing load little else."""

from __future__ import annotations

import subprocess
import sys

import pytest

from commandline import environment

ASK = """
import atexit, sys
atexit.register(lambda: print("\\n@", *sys.modules))
sys.argv = ["ogive", *{words!r}]
from ogive.cli.main import main
main()
"""
HEAVY = {"torch", "scipy", "matplotlib", "numpy"}


def loaded(words, folder) -> set[str]:
    ran = subprocess.run(
        [sys.executable, "-c", ASK.format(words=words)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "@" in ran.stdout, ran.stderr
    return {name.partition(".")[0] for name in ran.stdout.rpartition("@")[2].split()}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--help"],
        ["--version"],
        ["demo", "--help"],
        ["study", "--help"],
        ["parts", "--help"],
        ["bench", "--help"],
        ["bench", "--length", "0"],
        ["demo", "--quik"],
        ["parts", "--family", "wieght"],
        ["status"],
        ["status", "miniature"],
        ["status", "--json"],
    ],
)
def test_nothing_heavy(words, finished):
    assert loaded(words, finished[0]) & HEAVY == set()


@pytest.mark.parametrize(
    "words",
    [
        ["answer"],
        ["answer", "--json"],
        ["report"],
        ["study", "dmeo"],
        ["study", "miniature.py"],  # its children need torch, it does not
    ],
)
def test_no_torch(words, finished):
    assert "torch" not in loaded(words, finished[0])


def test_bites(finished):
    assert "torch" in loaded(["parts", "relu"], finished[0])

"""Benchmarks race what gives one answer, tell ratios the right way round, and keep results."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from commandline import environment
from ogive.kernels import compiled
from ogive.lab.races import Race, Spread, race

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(p.stem for p in FOLDER.glob("*.py") if "\ndef cases(" in p.read_text())


@pytest.fixture(scope="module")
def harness():
    sys.path.insert(0, str(FOLDER))
    yield importlib.import_module("harness")
    sys.path.remove(str(FOLDER))


def quick_cases(harness, name: str):
    script = importlib.import_module(name)
    return [c for c in script.cases(harness.Asked(True, 1)) if isinstance(c, harness.Case)]


def tensors(result):
    return [result] if isinstance(result, torch.Tensor) else list(result)


def near(one, two) -> bool:
    """Whether two answers are one, up to what their dtype can hold."""
    if one.shape != two.shape or one.dtype != two.dtype:
        return False
    allowed = 1e-4 if one.dtype == torch.float32 else 3e-2
    return bool((one.double() - two.double()).norm() <= allowed * two.double().norm())


def disagreements(case) -> list[str]:
    """Contenders whose answer is not that of the first one."""
    names = list(case.contenders)
    first = tensors(case.contenders[names[0]]())
    wrong = []
    for name in names[1:]:
        if name.endswith(")"):
            continue
        other = tensors(case.contenders[name]())
        same = len(other) == len(first) and all(map(near, first, other))
        wrong += [] if same else [f"{name}, {case.labels}"]
    return wrong


@pytest.mark.parametrize("name", SCRIPTS)
def test_contenders_compute_the_same(harness, name):
    cases = quick_cases(harness, name)
    assert cases
    assert [line for case in cases for line in disagreements(case)] == []


def test_bites_on_a_contender_that_computes_something_else(harness):
    one, two = torch.ones(3), torch.tensor([1.0, 1.0, 1.001])
    assert disagreements(harness.Case({}, {"ogive": lambda: one, "peer": lambda: two}))
    assert disagreements(harness.Case({}, {"ogive": lambda: (one, one), "peer": lambda: one}))
    assert not disagreements(harness.Case({}, {"ogive": lambda: one, "peer (max)": lambda: two}))


def test_a_script_prints_and_keeps_what_it_found(tmp_path):
    kept = tmp_path / "deep" / "kept.json"
    words = ["--quick", "--rounds", "2", "--threads", "1", "--only", "64", "--output", str(kept)]
    ran = subprocess.run(
        [sys.executable, FOLDER / "attention.py", *words],
        env=environment(PYTHONPATH=os.pathsep.join([str(FOLDER.parent / "src"), *_path()])),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(kept.read_text())
    assert told["machine"]["torch"] == str(torch.__version__)
    assert "--only 64" in told["command"]
    assert {row["length"] for row in told["rows"]} == {64}
    for row in told["rows"]:
        assert row["threads"] == 1
        assert 0 < row["ms"][0] <= row["ms"][1] <= row["ms"][2]
        assert f"| {row['contender']} |" in ran.stdout
    assert [p.name for p in kept.parent.iterdir()] == ["kept.json"]


def _path() -> list[str]:
    return [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]


def small(size: int):
    """A call that takes `size` MiB."""
    return lambda: torch.ones(size * 2**18)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system tells no peak")
@pytest.mark.parametrize("size", [16, 64])
def test_memory_is_what_the_call_takes(harness, size):
    taken = harness.peak_memory(small, (size,), (1,)) / 2**20
    assert size - 1 <= taken <= size + 4


def test_what_does_not_fit_is_said_and_harms_nobody(harness):
    with pytest.raises(MemoryError, match="does not fit"):
        harness.peak_memory(small, (2**24,), (1,))


def test_another_error_is_not_taken_for_a_lack_of_memory(harness, capfd):
    with pytest.raises(EOFError):
        harness.peak_memory(small, ("a",), (1,))
    assert "TypeError" in capfd.readouterr().err


# --- races ------------------------------------------------------------------------------------


def test_contenders_take_turns_and_the_order_turns_round():
    turns: list[str] = []
    big = torch.ones(1200, 1200)

    def contender(name):
        def run():
            turns.append(name)
            return big @ big  # long enough that a turn is one call

        return run

    found = race({"a": contender("a"), "b": contender("b")}, rounds=3)
    assert "".join(turns) == "aabb" + "ab" + "abbaab"  # warm up, a turn that is not counted
    assert found.threads == 1
    assert [len(times) for times in found.seconds.values()] == [3, 3]


def test_ratios_are_taken_round_by_round():
    found = Race({"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 4.0, 8.0]}, 8.0, 1)
    assert found.ratio("ours", "theirs") == Spread(2.0, 2.0, 2.0)
    assert found.ratio("theirs", "ours") == Spread(0.5, 0.5, 0.5)
    assert found.time("ours") == Spread(1.5, 2.0, 3.0)
    assert found.share("ours", 4.0) == 0.25


def test_the_probe_is_faster_where_vectors_are_wider(monkeypatch):
    """Not a matter of time: each instruction set counts its own operations."""
    if compiled.missing:
        pytest.skip(compiled.missing)
    done = []
    for name in compiled.supported():
        monkeypatch.setattr(compiled, "instruction_set", name)
        done.append(compiled.multiply_adds(1000, 1))
        assert compiled.multiply_adds(1000, 2) == 2 * done[-1]
    assert done == [24_000 * 4 * 2**at for at in range(len(done))]


def test_a_race_of_nobody_is_refused():
    with pytest.raises(ValueError, match="contender"):
        race({})
    with pytest.raises(ValueError, match="round"):
        race({"a": lambda: None}, rounds=0)

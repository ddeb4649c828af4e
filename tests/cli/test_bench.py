"""`ogive bench` tells what it measured, of which call, by which implementation."""

from __future__ import annotations

import json

import pytest
import torch

from commandline import ogive
from ogive.errors import ArgumentError
from ogive.kernels import compiled
from ogive.lab import bench as lab
from ogive.lab.bench import WEIGHTS, Line, eager, operations


def test_json_has_the_machine_and_every_line(tmp_path):
    words = ("bench", "--json", "--length", "16", "--length", "33", "--rounds", "2")
    ran = ogive(*words, "--threads", "1", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    assert told["machine"]["instruction_set"] == compiled.instruction_set
    assert told["machine"]["threads"] == 1
    assert (told["machine"]["peak_gflops"] or 0) > 0 or compiled.missing
    calls = {(x["weight"], x["mask"], x["length"], x["work"]) for x in told["lines"]}
    assert len(calls) == len(told["lines"]) == 4 * 2 * 2 * 2
    for line in told["lines"]:
        assert line["peer"] == ("sdpa" if line["weight"] == "softmax" else "eager")
        assert line["impl"] in ("native", "sdpa", "reference", "chunked")
        assert line["ratio"][0] <= line["ratio"][1] <= line["ratio"][2]
        assert line["ratio"][0] / 3 < line["peer_ms"] / line["ours_ms"] < line["ratio"][2] * 3
    assert list(tmp_path.iterdir()) == []


def test_a_table_for_people(tmp_path):
    ran = ogive("bench", "--length", "16", "--rounds", "1", folder=tmp_path)
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert compiled.instruction_set in lines[0] or compiled.missing
    assert lines[2].split()[:4] == ["weight", "mask", "length", "pass"]
    assert [row.split()[0] for row in lines[3:]] == [w for w in WEIGHTS for _ in range(4)]
    assert all(" × " in row for row in lines[3:])


def test_threads_are_given_back():
    before = torch.get_num_threads()
    lines = lab.bench([4], rounds=1, threads=before + 1)
    assert isinstance(next(lines), Line)
    assert torch.get_num_threads() == before + 1
    lines.close()
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("wrong", [{"lengths": []}, {"lengths": [0]}, {"rounds": 0}])
def test_nothing_to_race(wrong):
    with pytest.raises(ArgumentError, match="at least 1"):
        lab.bench(**wrong)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_eager_is_the_weight_function_it_stands_beside(weight, causal):
    from ogive.kernels import attention

    q, k, v = torch.randn(3, 1, 2, 9, 4, dtype=torch.float64)
    keep = torch.ones(9, 9, dtype=torch.bool).tril() if causal else None
    ours = attention(q, k, v, weight=WEIGHTS[weight], is_causal=causal, impl="reference")
    torch.testing.assert_close(eager(weight, keep, q, k, v), ours)
    other = "tanh" if weight == "relu" else "relu"
    assert not torch.allclose(eager(other, keep, q, k, v), ours)


def test_operations_are_those_of_the_products():
    """Counted by torch on the products themselves: 2 forward; scores again and 4 backward."""
    from torch.utils.flop_counter import FlopCounterMode

    q, k = torch.randn(2, 2, 3, 10, 8, requires_grad=True)
    v = torch.randn(2, 3, 10, 5, requires_grad=True)
    counter = FlopCounterMode(display=False)
    with counter:
        out = (q @ k.mT) @ v
    sizes = {"batch": 2, "heads": 3, "width": 8, "value_width": 5}
    assert operations(10, **sizes) == counter.get_total_flops()
    with counter:
        out = (q @ k.mT) @ v
        out.sum().backward()
    again = 2 * 2 * 3 * 10 * 10 * 8
    assert operations(10, backward=True, **sizes) == counter.get_total_flops() + again
    assert operations(10, causal=True, **sizes) == operations(10, **sizes) / 2

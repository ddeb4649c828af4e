"""T8 and T6 for the compiled kernels.

The same bits 250 times, on 1 to 4 threads, for a slice of the batch, from four Python threads; and
all sizes equal, so that no mix-up hides behind a shape.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kernels import cases
from kernels.cases import Case, build_call
from kernels.test_native_torture import FUSED, native_case
from ogive.kernels import attention, compiled

pytestmark = pytest.mark.skipif(bool(compiled.missing), reason=str(compiled.missing))

BASE = {"batch": 2, "heads": 4, "queries": 131, "keys": 131, "width": 9, "value_width": 17}
CONFIGS = {
    "softmax": (Case(1, **BASE), 0.0),
    "softmax, causal": (Case(2, causal="square", **BASE), 0.0),
    "sigmoid, grouped": (Case(3, weight="sigmoid(bias=-log_n)", group=2, **BASE), 0.0),
    "tanh, dropout": (Case(4, weight="tanh", **BASE), 0.4),
    "softmax, learned bias for all": (
        Case(5, mask="learned bias", broadcast="11ij", **BASE),
        0.0,
    ),
    "relu, learned bias of keys": (
        Case(6, weight="relu(length_power=1)", mask="learned bias", broadcast="j", **BASE),
        0.0,
    ),
    "softpick, window": (Case(7, weight="softpick", window=(5, 3), **BASE), 0.0),
    "additive": (Case(8, "additive(tanh)", causal="square", **BASE), 0.0),
    "gatv2, learned bias": (Case(9, "gatv2", mask="learned bias", broadcast="1h11", **BASE), 0.0),
}


def run(call: cases.Call, dropout: float) -> dict[str, torch.Tensor]:
    """out and gradients, with the dropout of one seed."""
    call.options["dropout_p"] = dropout
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return cases.ours(call, "native")


def differing(one, two) -> list[str]:
    return [name for name in one if not torch.equal(one[name], two[name])]


@pytest.mark.parametrize("name", CONFIGS)
def test_250_times(name, count):
    case, dropout = CONFIGS[name]
    call = build_call(cases.replace(case, queries=33, keys=33))
    first = run(call, dropout)
    assert [at for at in range(250) if differing(first, run(call, dropout))] == []
    count("T8", 250)


@pytest.mark.parametrize("name", CONFIGS)
def test_one_to_four_threads(name, count):
    case, dropout = CONFIGS[name]
    call = build_call(case)
    first = run(call, dropout)
    try:
        for threads in (2, 3, 4):
            torch.set_num_threads(threads)
            for _ in range(3):
                assert differing(first, run(call, dropout)) == [], f"{threads} threads"
    finally:
        torch.set_num_threads(1)
    count("T8", 9)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_slice_of_the_batch(name, count):
    case, dropout = CONFIGS[name]
    call = build_call(case)
    whole = run(call, dropout)
    call.inputs = {n: t if n == "bias" else t[:1] for n, t in call.inputs.items()}
    call.grad = call.grad[:1]
    part = run(call, dropout)
    for tensor in ("out", "query", "key", "value"):
        assert torch.equal(whole[tensor][:1], part[tensor]), tensor
    count("T8", 1)


@pytest.mark.parametrize("name", ["softmax, causal", "tanh, dropout", "additive"])
def test_four_python_threads(name, count):
    """Each call draws its own seed, so dropout is left out: torch's generator is one for all."""
    call = build_call(cases.replace(CONFIGS[name][0], queries=40, keys=40))
    first = cases.ours(call, "native")
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cases.ours(call, "native"), range(200)))
    assert [at for at, one in enumerate(found) if differing(first, one)] == []
    count("T8", 200)


def test_bits_bite():
    """One bit of one number is seen."""
    first = run(build_call(CONFIGS["softmax"][0]), 0.0)
    other = {n: t.clone() for n, t in first.items()}
    other["key"].view(torch.int32)[0, 0, 0, 0] ^= 1
    assert differing(first, other) == ["key"]


@pytest.mark.parametrize("size", [2, 4, 7, 16, 33])
def test_equal_sizes_hide_no_mix_up(size, count, nan_memory):
    names = ("batch", "heads", "queries", "keys", "width", "value_width")
    light = [f for f in FUSED if f[1].split("(")[0] not in ("softpick", "linear")]
    lines = []
    for at in range(10):
        score, weight = light[(at * 7 + size) % len(light)]
        case = native_case(3_000_000 + at)
        sizes = dict.fromkeys(names, size) | ({"batch": 1, "heads": 2} if size > 16 else {})
        case = cases.replace(case, score=score, weight=weight, group=1, **sizes)
        lines += cases.broken_by(build_call(case), ("native",))
    assert not lines, "\n".join(lines)
    count("T6", 10)


def test_heads_are_not_batches():
    """A call whose batch and heads change places changes places in its answer."""
    q, k, v = torch.randn(3, 3, 5, 7, 4)
    out = attention(q, k, v, impl="native")
    turned = attention(*(t.transpose(0, 1) for t in (q, k, v)), impl="native")
    assert torch.equal(out, turned.transpose(0, 1))

"""T5 and T6: however a tensor lies in memory, the call gives what the contiguous call gives.

Values and gradients keep the rule against the oracle; where the arithmetic is the same, every bit.
"""

from __future__ import annotations

import itertools
import random

import pytest
import torch
from torch import Tensor

from kernels import cases
from kernels.cases import Case, build_call, random_case
from kernels.rule import violations
from kernels.test_t01_grid import check
from ogive.kernels import attention, compiled


def transposed(x: Tensor) -> Tensor:
    return x.mT.contiguous().mT


def every_second(x: Tensor) -> Tensor:
    return x.repeat_interleave(2, -1)[..., ::2]


def offset(x: Tensor) -> Tensor:
    return torch.cat((x.new_zeros(3), x.flatten()))[3:].view(x.shape)


def strided(x: Tensor) -> Tensor:
    store = x.new_zeros(2 * x.numel() + 5)
    sizes, step = [], 2
    for size in reversed(x.shape):
        sizes.insert(0, step)
        step *= size
    view = store.as_strided(x.shape, sizes, 5)
    view.copy_(x)
    return view


def misaligned(x: Tensor) -> Tensor:
    """Starts one element past an aligned address."""
    store = torch.empty(x.numel() + 1, dtype=x.dtype)
    return store[1:].view(x.shape).copy_(x)


def heads_last(x: Tensor) -> Tensor:
    """(b, l, h, d) in memory, as projections leave it."""
    return x.transpose(1, 2).contiguous().transpose(1, 2) if x.dim() == 4 else x


LAYOUTS = {
    f.__name__: f for f in (transposed, every_second, offset, strided, misaligned, heads_last)
}
TENSORS = ("query", "key", "value", "attn_mask", "bias", "grad")
WEIGHTS = ("softmax", "tanh", "sparsemax", "relu(length_power=1)")


def lay(call: cases.Call, name: str, layout) -> None:
    if name == "grad":
        call.grad = layout(call.grad)
    elif name == "attn_mask":
        call.options[name] = layout(call.options[name])
    else:
        call.inputs[name] = layout(call.inputs[name])


def results(call: cases.Call, impl: str) -> dict[str, Tensor]:
    """Like cases.ours, but leaves keep their layout (a detached view, not a clone)."""
    leaves = {n: t.detach().requires_grad_() for n, t in call.inputs.items()}
    options = call.options | {"attn_bias": leaves["bias"]}
    tensors = [leaves[n] for n in ("query", "key", "value")]
    out = attention(*tensors, score=call.score, weight=call.weight, impl=impl, **options)
    grads = torch.autograd.grad(out, list(leaves.values()), call.grad)
    return {"out": out.detach(), **dict(zip(leaves, grads, strict=True))}


def laid_out_call(weight: str, seed: int = 0) -> cases.Call:
    call = build_call(
        Case(
            seed, weight=weight, mask="learned bias", batch=2, heads=2, queries=9, keys=12, width=8
        )
    )
    draw = torch.Generator().manual_seed(seed)
    call.options["attn_mask"] = torch.rand(2, 2, 9, 12, generator=draw) > 0.3
    call.keep = call.options["attn_mask"]
    return call


def compare(call: cases.Call, plain: dict[str, Tensor], impl: str, what: str) -> None:
    found = results(call, impl)
    truth, eager = cases.theirs(call, torch.float64), cases.theirs(call, torch.float32)
    broken = violations(found, eager, truth, cases.naturals(call), torch.float32)
    assert not broken, f"{what}: {broken}"
    for name, tensor in found.items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", TENSORS)
def test_one_tensor_at_a_time(name, layout, count, nan_memory):
    done = 0
    for weight in WEIGHTS:
        for impl in cases.impls_of(Case(0, weight=weight)):
            call = laid_out_call(weight)
            plain = results(call, impl)
            lay(call, name, LAYOUTS[layout])
            compare(call, plain, impl, f"{name} {layout}, {weight}, {impl}")
            done += 1
    count("T5", done)


@pytest.mark.parametrize("chunk", range(4))
def test_all_at_once(chunk, count, nan_memory):
    for seed in range(chunk * 50, chunk * 50 + 50):
        pick = random.Random(seed)
        weight = pick.choice(WEIGHTS)
        impl = pick.choice(cases.impls_of(Case(0, weight=weight)))
        call = laid_out_call(weight, seed)
        plain = results(call, impl)
        for name in TENSORS:
            lay(call, name, LAYOUTS[pick.choice(list(LAYOUTS))])
        compare(call, plain, impl, f"seed {seed}")
    count("T5", 50)


@pytest.mark.parametrize("impl", ["reference", "sdpa", "auto"])
@pytest.mark.parametrize("axis", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["query", "key", "value", "attn_mask", "bias", "grad"])
def test_expanded_tensors(name, axis, impl, count):
    """One slice, seen many times through a stride of zero."""
    call = laid_out_call("softmax")
    whole = {"grad": call.grad, "attn_mask": call.options["attn_mask"]} | call.inputs
    one = whole[name].narrow(axis, 0, 1).expand_as(whole[name])
    lay(call, name, lambda _: one.contiguous())
    call.keep = call.options["attn_mask"]
    call.bias = call.inputs["bias"]
    plain = results(call, impl)
    lay(call, name, lambda _: one)
    compare(call, plain, impl, f"{name} expanded along {axis}")
    count("T5", 1)


@pytest.mark.skipif(compiled.missing is not None, reason="no kernels were compiled here")
@pytest.mark.parametrize("dtype", cases.DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_one_query_reads_keys_where_they_lie(layout, dtype, monkeypatch, count, nan_memory):
    """Nothing is packed for it; widths with and without rests, masks, and what they hide."""
    done = 0
    for instructions, width, weight in itertools.product(
        compiled.supported(), (3, 17, 64), ("softmax", "tanh")
    ):
        monkeypatch.setattr(compiled, "instruction_set", instructions)
        sizes = {"heads": 2, "group": 2, "queries": 1, "keys": 150, "width": width}
        case = Case(width, weight=weight, mask="bool", dtype=dtype, value_width=width + 1, **sizes)
        call = build_call(case)
        clean = cases.ours(call, "native")["out"]
        for name in ("query", "key", "value"):
            call.inputs[name] = LAYOUTS[layout](call.inputs[name])
        assert torch.equal(cases.ours(call, "native")["out"], clean)
        assert not cases.broken_by(call, ("native",))
        hidden = (~call.keep.broadcast_to(1, 2, 1, 150)).all(1).view(-1)
        for name in ("key", "value"):
            call.inputs[name] = call.inputs[name].clone()
            call.inputs[name][:, :, hidden] = torch.nan
        assert hidden.any()
        assert torch.equal(cases.ours(call, "native")["out"], clean)
        done += 1
    count("T5", done)


@pytest.mark.parametrize("size", [2, 4, 5, 8, 16])
def test_equal_sizes_hide_no_mix_up(size, count):
    """T6: batch = heads = queries = keys = width: a wrong transpose has the right shape."""
    done, broken = 0, []
    for seed in range(10):
        sizes = dict.fromkeys(("batch", "heads", "queries", "keys", "width", "value_width"), size)
        case = random_case(seed, **sizes, group=1, causal=("none", "square")[seed % 2])
        case = cases.replace(case, dtype=(torch.float32, torch.float64)[seed % 2])
        if size > 8 and case.weight in cases.oracle.ROWWISE:
            case = cases.replace(case, weight="softmax")
        ran, lines = check(case)
        done, broken = done + ran, broken + lines
    assert not broken, "\n".join(broken)
    count("T6", done)

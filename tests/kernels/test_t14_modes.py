"""T14: autocast, inference mode, checkpointing, copies, pickles and the meta device."""

from __future__ import annotations

import copy
import io
import pickle
from itertools import product

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from kernels import cases
from kernels.cases import SCORES, WEIGHTS, Case, build_call
from kernels.rule import violations
from ogive.kernels import attention
from ogive.parts import Sizes, build, score_from

SIZES = Sizes(8, 2, 4)
SOME = ("softmax", "tanh", "sparsemax", "sink", "relu(length_power=1)")


def run(call, **more):
    options = call.options | more
    tensors = dict(call.inputs)
    if "bias" in tensors:
        options["attn_bias"] = tensors.pop("bias")
    return attention(**tensors, score=call.score, weight=call.weight, **options)


@pytest.mark.parametrize("mask", ["none", "bool", "float", "learned bias"])
@pytest.mark.parametrize("weight", SOME)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_the_call_in_that_dtype(weight, mask, dtype, count):
    call = build_call(Case(4, weight=weight, mask=mask, causal="square"))
    with torch.autocast("cpu", dtype=dtype):
        found = run(call)
    assert found.dtype == dtype
    call.inputs = {n: t if n == "bias" else t.to(dtype) for n, t in call.inputs.items()}
    assert torch.equal(found, run(call))
    count("T14", 1)


@pytest.mark.parametrize("weight", SOME)
def test_autocast_keeps_the_rule(weight, count):
    """Gradients through autocast, held to bf16's rule (inputs are float32: add their rounding)."""
    call = build_call(Case(4, weight=weight, causal="square", dtype=torch.bfloat16))
    call.inputs = {n: t.float() for n, t in call.inputs.items()}

    def under(**arguments):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return attention(**arguments)

    truth, eager = cases.theirs(call, torch.float64), cases.theirs(call, torch.bfloat16)
    found = cases.ours(call, "auto", under)
    assert not violations(found, eager, truth, cases.naturals(call), torch.bfloat16)
    count("T14", 1)


@pytest.mark.parametrize("weight", SOME)
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_without_gradients(mode, weight, count):
    call = build_call(Case(5, weight=weight, mask="bool"))
    plain = run(call)
    with mode():
        found = run(call)
    assert torch.equal(found, plain.detach())
    assert not found.requires_grad
    count("T14", 1)


@pytest.mark.parametrize("weight", ["tanh", "relu(length_power=1)", "silu(length_power=0)"])
def test_what_only_looked_first_may_train_later(weight, count):
    """What a plain call keeps for the next one must not be a tensor of inference mode."""
    tensors = [torch.randn(1, 1, 3, 5) for _ in range(3)]  # sizes of no other test
    with torch.inference_mode():
        attention(*tensors, weight=weight)
    leaf = tensors[0].requires_grad_()
    (first,) = torch.autograd.grad(
        attention(*tensors, weight=weight).square().sum(), leaf, create_graph=True
    )
    (second,) = torch.autograd.grad(first.square().sum(), leaf)
    assert second.any()
    count("T14", 1)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("weight", SOME)
def test_checkpointing(weight, reentrant, count):
    call = build_call(Case(6, weight=weight, mask="learned bias"))
    leaves = {n: t.requires_grad_() for n, t in call.inputs.items()}
    found = []
    for keep_all in (True, False):
        out = (
            run(call)
            if keep_all
            else checkpoint(lambda *_: run(call), *leaves.values(), use_reentrant=reentrant)
        )
        out.backward(call.grad)
        found.append([t.grad for t in leaves.values()])
        for tensor in leaves.values():
            tensor.grad = None
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    count("T14", 1)


PARTS = [("score", s) for s in SCORES] + [("weight", w) for w in WEIGHTS]


def make(family, written):
    part = score_from(written) if family == "score" else build("weight", written)
    return part.setup(SIZES)


@pytest.mark.parametrize(("family", "written"), PARTS)
def test_parts_copy_pickle_and_save(family, written, count):
    part = make(family, written)
    tensors = [torch.randn(1, 2, 5, 4) for _ in range(3)]
    plain = attention(*tensors, **{family: part})
    stream = io.BytesIO()
    torch.save(part.state_dict(), stream)
    loaded = make(family, written)
    loaded.load_state_dict(
        torch.load(io.BytesIO(stream.getvalue()), weights_only=True), strict=True
    )
    for other in (copy.deepcopy(part), pickle.loads(pickle.dumps(part)), loaded):
        assert torch.equal(attention(*tensors, **{family: other}), plain)
        assert str(other) == str(part)
    count("T14", 3)


@pytest.mark.parametrize(("score", "weight"), list(product(SCORES, WEIGHTS))[::3])
def test_meta_tensors_give_shapes(score, weight, count):
    parts = {"score": make("score", score).to("meta"), "weight": make("weight", weight).to("meta")}
    tensors = [torch.empty(2, 2, 5, 4, device="meta") for _ in range(3)]
    out = attention(*tensors, **parts, is_causal=True)
    assert out.shape == (2, 2, 5, 4)
    assert out.device.type == "meta"
    count("T14", 1)


def test_inputs_stay_as_they_were(count):
    for weight in WEIGHTS:
        call = build_call(Case(8, weight=weight, mask="both", causal="offset"))
        before = {n: t.clone() for n, t in call.inputs.items()}
        mask, bias = (call.options[n].clone() for n in ("attn_mask", "attn_bias"))
        cases.ours(call, "auto")
        assert all(torch.equal(before[n], call.inputs[n]) for n in before)
        assert torch.equal(mask, call.options["attn_mask"])
        assert torch.equal(bias, call.options["attn_bias"])
    count("T14", len(WEIGHTS))


def test_outputs_alias_no_input(count):
    value = torch.ones(1, 1, 1, 4)
    out = attention(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 1, 4), value)
    out.add_(1)
    assert value.eq(1).all()
    count("T14", 1)

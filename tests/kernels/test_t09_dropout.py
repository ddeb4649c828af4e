"""T9: dropout. The right share, the same forward and backward, and a pattern by counting."""

from __future__ import annotations

import math

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from kernels import cases
from kernels.cases import Case, build_call
from kernels.rule import violations
from ogive.kernels import attention, compiled, last_impl
from ogive.kernels.dropout import kept

WEIGHTS = ("softmax", "tanh", "relu(length_power=1)", "sparsemax")


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("seed", [0, 1, 2**61])
def test_the_share_dropped(p, seed, count):
    shape = torch.Size((2, 3, 100, 110))
    dropped = 1 - kept(torch.tensor(seed), shape, p).double().mean().item()
    assert abs(dropped - p) <= 4 * math.sqrt(p * (1 - p) / shape.numel())
    count("T9", 1)


def test_no_axis_is_favoured(count):
    """Means over every single axis stay within 5σ: a counter that repeats would not."""
    stay = kept(torch.tensor(7), torch.Size((4, 4, 64, 64)), 0.3).double()
    for axis in range(4):
        means = stay.mean([a for a in range(4) if a != axis])
        sigma = math.sqrt(0.3 * 0.7 / (stay.numel() / stay.shape[axis]))
        assert ((means - 0.7).abs() < 5 * sigma).all()
    flat = stay.flatten() - 0.7
    assert abs((flat[1:] * flat[:-1]).mean().item()) < 5 * 0.21 / math.sqrt(flat.numel())
    count("T9", 1)


@pytest.mark.parametrize("seed", range(5))
def test_the_pattern_depends_on_the_place_alone(seed, count):
    """A longer, wider, larger batch begins with the pattern of the smaller one."""
    small = kept(torch.tensor(seed), torch.Size((1, 2, 5, 7)), 0.4)
    large = kept(torch.tensor(seed), torch.Size((3, 4, 9, 20)), 0.4)
    assert torch.equal(small, large[:1, :2, :5, :7])
    assert not torch.equal(large, kept(torch.tensor(seed + 1), large.shape, 0.4))
    count("T9", 1)


def dropped_call(weight: str) -> cases.Call:
    call = build_call(Case(9, weight=weight, causal="square", queries=17, keys=17, width=8))
    call.options["dropout_p"] = 0.3
    return call


@pytest.mark.parametrize("weight", WEIGHTS)
def test_forward_and_backward_drop_the_same(weight, count):
    """The oracle, told which weights stay, gives the same outputs and gradients."""
    call = dropped_call(weight)
    torch.manual_seed(4)
    seed = torch.randint(2**62, ())
    stay = kept(seed, torch.Size((1, 2, 17, 17)), 0.3)
    torch.manual_seed(4)
    found = cases.ours(call, "reference")
    truth = {}
    for dtype in (torch.float64, torch.float32):
        call.extra = {"dropped": stay.to(dtype) / 0.7}
        truth[dtype] = cases.theirs(call, dtype)
    nat = {n: x / 0.7**2 for n, x in cases.naturals(call).items()}
    assert not violations(found, truth[torch.float32], truth[torch.float64], nat, torch.float32)
    count("T9", 1)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_seed_repeats_and_threads_do_not_matter(weight, count):
    call = dropped_call(weight)
    results = []
    for threads in (1, 1, 2):
        torch.manual_seed(11)
        torch.set_num_threads(threads)
        results.append(cases.ours(call, "auto"))
        torch.set_num_threads(1)
    other = cases.ours(call, "auto")
    for name in results[0]:
        assert torch.equal(results[0][name], results[1][name])
        assert torch.equal(results[0][name], results[2][name])
    assert not torch.equal(results[0]["out"], other["out"])
    assert last_impl() in ("reference", "native")
    count("T9", 3)


@pytest.mark.parametrize("reentrant", [False, True])
def test_through_checkpointing(reentrant, count):
    call = dropped_call("softmax")

    def gradients(run):
        leaves = [t.detach().requires_grad_() for t in call.inputs.values()]
        torch.manual_seed(5)
        return (
            torch.autograd.grad(run(*leaves), leaves, call.grad)
            if not reentrant
            else _summed(run(*leaves), leaves, call.grad)
        )

    def step(*tensors):
        return attention(*tensors, **call.options)

    plain = gradients(step)
    again = gradients(lambda *t: checkpoint(step, *t, use_reentrant=reentrant))
    assert all(torch.equal(one, two) for one, two in zip(plain, again, strict=True))
    count("T9", 1)


def _summed(out, leaves, grad):
    out.backward(grad)
    return [leaf.grad for leaf in leaves]


def test_no_dropout_is_no_dropout(count):
    call = dropped_call("softmax")
    without = {k: v for k, v in call.options.items() if k != "dropout_p"}
    plain = attention(**call.inputs, **without, impl="reference")
    assert torch.equal(attention(**call.inputs, **without, dropout_p=0.0, impl="reference"), plain)
    assert torch.equal(attention(**call.inputs, **without, dropout_p=0, impl="reference"), plain)
    count("T9", 2)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_mean_is_the_undropped_answer(weight, count):
    """1/(1 − p) keeps the expectation: the mean of 2,000 draws is within 5 standard errors."""
    call = dropped_call(weight)
    options = call.options | {"weight": weight}
    torch.manual_seed(0)
    draws = torch.stack([attention(**call.inputs, **options) for _ in range(2000)])
    plain = attention(**call.inputs, **(options | {"dropout_p": 0.0}))
    error = draws.std(0) / math.sqrt(2000)
    assert ((draws.mean(0) - plain).abs() <= 5 * error + 1e-6).all()
    count("T9", 1)


@pytest.mark.skipif(compiled.missing is not None, reason="no kernels were compiled here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("lengths", [(1, 300), (50, 131), (131, 50)])
def test_every_instruction_set_keeps_the_same_weights(lengths, dtype, monkeypatch, count):
    """Forward, by an identity for values, and backward, by one for the output's gradient."""
    queries, keys = lengths
    query, key = torch.randn(2, 2, queries, 8), torch.randn(2, 2, keys, 8)
    for instructions in compiled.supported():
        monkeypatch.setattr(compiled, "instruction_set", instructions)
        value = torch.eye(keys).expand(2, 2, -1, -1).to(dtype).requires_grad_()
        inputs = query.to(dtype), key.to(dtype).requires_grad_(), value
        torch.manual_seed(7)
        out = attention(*inputs, weight="sigmoid(bias=0)", dropout_p=0.4, impl="native")
        torch.manual_seed(7)
        stay = kept(torch.randint(2**62, ()), torch.Size((2, 2, queries, keys)), 0.4)
        assert torch.equal(out != 0, stay)
        for i in (0, queries - 1):
            grad = torch.zeros_like(out)
            grad[:, :, i, 0] = 1
            (back,) = torch.autograd.grad(out, value, grad, retain_graph=True)
            assert torch.equal(back[..., 0] != 0, stay[:, :, i])
    count("T9", len(compiled.supported()))

"""T11: second derivatives, forward mode and torch.func: right, or an error; never silently zero."""

from __future__ import annotations

import pytest
import torch
from torch.func import functional_call, hessian, jacrev, jvp, vmap
from torch.func import grad as grad_of

from kernels import cases, oracle
from kernels.cases import SCORES, WEIGHTS
from kernels.test_t10_gradcheck import function_of, small
from ogive.errors import ImplUnavailable
from ogive.kernels import attention, compiled

SMOOTH = [w for w in WEIGHTS if w.split("(")[0] not in ("sparsemax", "softpick", "cog")]
OPTIONS = {"plain": {}, "masked": {"mask": "both", "causal": "offset"}}
MIXED = [(SCORES[at % len(SCORES)], w) for at, w in enumerate(WEIGHTS)] + [
    ("dot", w) for w in WEIGHTS
]


def pair(score, weight, options, impl="reference"):
    """ours and the oracle as functions of (query, key, value), and those tensors."""
    call = small(score, weight, **options)

    def ours(*tensors):
        return attention(*tensors, score=call.score, weight=call.weight, impl=impl, **call.options)

    def theirs(*tensors):
        return oracle.attend(
            *tensors,
            keep=call.keep,
            bias=call.bias,
            **cases.formulas(call),
            score_params=cases._family(call.parameters, "score."),
            weight_params=cases._family(call.parameters, "weight."),
        ).out

    tensors = [call.inputs[n] for n in ("query", "key", "value")]
    return ours, theirs, tensors, call


def refused(error, impl):
    """torch's fused operation has no forward mode, and says so; ours, and "auto", always have."""
    assert impl == "sdpa", error
    assert "forward" in str(error), error


def transforming(case):
    """Implementations that torch.func may transform; blocks and kernels refuse, by name."""
    return [impl for impl in cases.impls_of(case) if impl not in ("chunked", "native")]


def test_blocks_and_kernels_refuse_transforms():
    call = small("dot", "tanh")
    many = [torch.stack((call.inputs[n],) * 2).float() for n in ("query", "key", "value")]
    for impl in ("chunked",) if compiled.missing else ("chunked", "native"):
        with pytest.raises(ImplUnavailable, match=r"torch\.func"):
            vmap(lambda q, k, v, impl=impl: attention(q, k, v, weight="tanh", impl=impl))(*many)


def close(one, two):
    torch.testing.assert_close(one, two, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("score", "weight"), MIXED)
def test_second_derivatives(score, weight, options, count):
    call = small(score, weight, **OPTIONS[options])
    for impl in cases.impls_of(call.case):
        run, inputs = function_of(call, impl)
        assert torch.autograd.gradgradcheck(run, inputs, eps=1e-6, atol=1e-5, rtol=1e-3)
    count("T11", 1)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("score", "weight"), MIXED)
def test_gradient_penalty(score, weight, options, count):
    """∂/∂q of |∂ Σout² / ∂(q, k, v)|², when the first gradient's own gradient is wanted."""
    found = []
    call = small(score, weight, **OPTIONS[options])
    for impl in (*cases.impls_of(call.case), "oracle"):
        ours, theirs, tensors, _ = pair(score, weight, OPTIONS[options], impl)
        leaves = [t.clone().requires_grad_() for t in tensors]
        out = (theirs if impl == "oracle" else ours)(*leaves)
        first = torch.autograd.grad(out.square().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in first), leaves))
    for mine in found[:-1]:
        for one, two in zip(mine, found[-1], strict=True):
            close(one, two)
    count("T11", len(found) - 1)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("score", "weight"), MIXED)
def test_forward_mode(score, weight, options, count):
    call = small(score, weight, **OPTIONS[options])
    for impl in transforming(call.case):
        ours, theirs, tensors, _ = pair(score, weight, OPTIONS[options], impl)
        along = [torch.randn_like(t) for t in tensors]
        try:
            value, tangent = jvp(ours, tuple(tensors), tuple(along))
        except NotImplementedError as error:
            refused(error, impl)
            continue
        jacobians = jacrev(theirs, argnums=(0, 1, 2))(*tensors)
        right = sum((j * a).flatten(4).sum(-1) for j, a in zip(jacobians, along, strict=True))
        close(value, theirs(*tensors))
        close(tangent, right)
    count("T11", 1)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("score", "weight"), MIXED)
def test_vmap_and_its_gradient(score, weight, options, count):
    call = small(score, weight, **OPTIONS[options])
    for impl in transforming(call.case):
        ours, _, tensors, _ = pair(score, weight, OPTIONS[options], impl)
        many = [torch.stack((t, t.flip(-1), t * 0.5)) for t in tensors]
        single = torch.stack([ours(*each) for each in zip(*many, strict=True)])
        close(vmap(ours)(*many), single)

        def loss(*each, run=ours):
            return run(*each).square().sum()

        found = vmap(grad_of(loss, argnums=(0, 1, 2)))(*many)
        for at in range(3):
            leaves = [m[at].clone().requires_grad_() for m in many]
            right = torch.autograd.grad(loss(*leaves), leaves)
            for one, two in zip(found, right, strict=True):
                close(one[at], two)
    count("T11", 2)


@pytest.mark.parametrize(("score", "weight"), MIXED[::2])
def test_hessian(score, weight, count):
    call = small(score, weight)
    for impl in transforming(call.case):
        ours, theirs, (q, k, v), _ = pair(score, weight, OPTIONS["masked"], impl)
        try:
            mine = hessian(lambda x, run=ours, k=k, v=v: run(x, k, v).square().sum())(q)
        except NotImplementedError as error:
            refused(error, impl)
            continue
        leaf = q.clone().requires_grad_()
        (first,) = torch.autograd.grad(theirs(leaf, k, v).square().sum(), leaf, create_graph=True)
        rows = [
            torch.autograd.grad(g, leaf, retain_graph=True, materialize_grads=True)[0]
            for g in first.flatten()
        ]
        close(mine.reshape(len(rows), -1), torch.stack(rows).flatten(1))
    count("T11", 1)


@pytest.mark.parametrize("weight", ["softmax", "tanh", "sink"])
def test_functional_call(weight, count):
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            call = small("bilinear", weight)
            self.score, self.weight = call.score, call.weight
            self.tensors = [call.inputs[n] for n in ("query", "key", "value")]

        def forward(self):
            return attention(*self.tensors, score=self.score, weight=self.weight)

    layer = Layer()
    doubled = {n: 2 * p.detach() for n, p in layer.named_parameters()}
    found = functional_call(layer, doubled, ())
    assert not torch.allclose(found, layer())
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.mul_(2)
    close(found, layer())
    count("T11", 1)

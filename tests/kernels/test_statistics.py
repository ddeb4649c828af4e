"""Statistics of rows beside the kernels: the reference's, gradients too, in linear memory."""

from __future__ import annotations

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kernels import cases, oracle
from kernels.cases import WEIGHTS, Case, build_call
from ogive.errors import ImplUnavailable
from ogive.kernels import AuxRequest, attention, blocks, compiled, last_impl

pytestmark = pytest.mark.skipif(
    compiled.missing is not None, reason=f"no kernels were compiled here: {compiled.missing}"
)
SUMS = AuxRequest(lse=True, row_sum=True, max_score=True, entropy=True, weights_rows=[4, 0, 1])
ALL = AuxRequest(row_sum=True, weights=True, weights_rows=[2])
FUSED = AuxRequest(lse=True, row_sum=True)


def answers(case: Case, impl: str, request: AuxRequest) -> dict[str, torch.Tensor]:
    """Output, statistics, and the gradients of a weighted sum of all of them."""
    call = build_call(case)
    leaves = {n: t.clone().requires_grad_() for n, t in call.inputs.items()}
    tensors = dict(leaves)
    if "bias" in tensors:
        tensors["attn_bias"] = tensors.pop("bias")
    parts = {"score": call.score, "weight": call.weight}
    out, aux = attention(**tensors, **parts, **call.options, impl=impl, return_aux=request)
    assert last_impl() == impl
    found = {"out": out, **{n: t for n, t in aux._asdict().items() if t is not None}}
    draw = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64)
    for tensor in found.values():
        factors = torch.randn(tensor.shape, generator=draw, dtype=torch.float64)
        seen = tensor.isfinite()  # lse and maximum of a blind row are −∞
        total = total + (torch.where(seen, tensor, 0) * factors).sum()
    wanted = leaves | call.parameters
    grads = torch.autograd.grad(
        total, list(wanted.values()), allow_unused=True, materialize_grads=True
    )
    return found | {f"d{n}": g for n, g in zip(wanted, grads, strict=True)}


def same(mine: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == right.keys()
    for name, tensor in right.items():
        torch.testing.assert_close(mine[name], tensor, rtol=1e-9, atol=1e-11, msg=name)


@pytest.mark.parametrize("request_", [SUMS, ALL, FUSED], ids=["sums", "all weights", "fused"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_they_are_the_references(weight, request_, monkeypatch, count):
    monkeypatch.setattr(blocks, "BUDGET", 4 * 7)  # a query in a block
    done = 0
    scores = ("dot", "distance", "dot,softcap(2)", "additive(tanh)", "cosine", "gat")
    masks = ("both", "learned bias", "bool")
    for score, mask in zip(scores, masks * 2, strict=True):
        case = Case(
            3, score, weight, "square", mask, batch=2, heads=4, group=2, queries=7, keys=7,
            dtype=torch.float64,
        )  # fmt: skip
        same(answers(case, "native", request_), answers(case, "reference", request_))
        done += 1
    count("aux", done)


def test_rows_that_see_nothing():
    call = build_call(Case(1, queries=6, keys=6, dtype=torch.float64))
    seen = torch.ones(6, 6, dtype=torch.bool)
    seen[4] = False
    _, aux = attention(**call.inputs, attn_mask=seen, impl="native", return_aux=SUMS)
    for name, nothing in (("lse", -torch.inf), ("max_score", -torch.inf), ("entropy", 0.0)):
        assert (getattr(aux, name)[:, :, 4] == nothing).all()
        assert getattr(aux, name)[:, :, :4].isfinite().all()
    assert not aux.weights_rows[:, :, 0].any()


def test_no_rows_and_rows_twice():
    call = build_call(Case(1, queries=6, keys=6))
    for rows, expected in (([], 0), ([5, 5, 2], 3)):
        wanted = AuxRequest(weights_rows=rows)
        _, mine = attention(**call.inputs, impl="native", return_aux=wanted)
        _, right = attention(**call.inputs, impl="reference", return_aux=wanted)
        assert mine.weights_rows.shape == (1, 2, expected, 6)
        torch.testing.assert_close(mine.weights_rows, right.weights_rows)


@pytest.mark.parametrize("weight", ["softmax", "tanh", "sparsemax"])
def test_hidden_nan_does_not_reach_them(weight):
    call = build_call(Case(5, weight=weight, queries=6, keys=7))
    seen = torch.ones(6, 7, dtype=torch.bool)
    seen[:, 4] = False
    options = {"weight": call.weight, "attn_mask": seen, "impl": "native", "return_aux": SUMS}
    clean = attention(**call.inputs, **options)[1]
    for name in ("key", "value"):
        call.inputs[name][:, :, 4] = torch.nan
    dirty = attention(**call.inputs, **options)[1]
    for name in ("lse", "row_sum", "max_score", "entropy", "weights_rows"):
        assert torch.equal(getattr(clean, name), getattr(dirty, name)), name


def test_dropout_changes_none_of_them():
    call = build_call(Case(5, queries=6, keys=7))
    plain = attention(**call.inputs, impl="native", return_aux=SUMS)[1]
    dropped = attention(**call.inputs, impl="native", return_aux=SUMS, dropout_p=0.5)[1]
    assert all(torch.equal(a, b) for a, b in zip(plain, dropped, strict=True) if a is not None)


@pytest.mark.parametrize("queries", [1, 3, 6])
@pytest.mark.parametrize("weight", ["softmax", "softmax1", "tanh"])
def test_wild_rows_have_the_definitions_sums(weight, queries):
    """A row that sees NaN, infinity or a product beyond float32, and rows that do not."""
    call = build_call(Case(5, weight=weight, queries=queries, keys=7))
    call.inputs["key"][0, 0, 2, 1] = torch.inf
    call.inputs["key"][0, 1, 3, 0] = torch.nan
    call.inputs["query"][0, 1, 0] = 1e30
    seen = torch.ones(queries, 7, dtype=torch.bool)
    seen[queries // 2, 2:4] = False
    found = {}
    for impl in ("native", "reference"):
        leaves = {n: t.clone().requires_grad_() for n, t in call.inputs.items()}
        options = {"weight": call.weight, "attn_mask": seen, "impl": impl, "return_aux": FUSED}
        out, aux = attention(**leaves, **options)
        tensors = [t.masked_fill(~t.isfinite(), 0) for t in (out, aux.lse, aux.row_sum)]
        grads = torch.autograd.grad(sum(t.sum() for t in tensors), list(leaves.values()))
        found[impl] = [out, aux.lse, aux.row_sum, *grads]
    for mine, right in zip(*found.values(), strict=True):
        torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("weight", ["softmax", "sink", "relu"])
def test_gradients_of_fused_sums_are_derivatives(weight):
    call = build_call(
        Case(7, weight=weight, queries=5, keys=5, causal="square", dtype=torch.float64)
    )
    leaves = [t.clone().requires_grad_() for t in call.inputs.values()]

    def sums(*tensors):
        options = {"weight": call.weight, "is_causal": True, "impl": "native"}
        out, aux = attention(*tensors, **options, return_aux=FUSED)
        return out, aux.lse, aux.row_sum

    assert torch.autograd.gradcheck(sums, leaves)
    assert torch.autograd.gradgradcheck(sums, leaves)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_of_halves_are_wider_than_they(dtype):
    call = build_call(Case(7, weight="tanh", queries=9, keys=300, dtype=dtype))
    options = {"weight": "tanh", "return_aux": FUSED}
    mine = attention(**call.inputs, **options, impl="native")[1]
    right = attention(**call.inputs, **options, impl="reference")[1]
    for name in ("lse", "row_sum"):
        assert getattr(mine, name).dtype == torch.float32
        torch.testing.assert_close(getattr(mine, name), getattr(right, name), rtol=1e-5, atol=1e-4)


class Largest(TorchDispatchMode):
    """The most numbers that any tensor made has."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


@pytest.mark.parametrize("fused", [True, False])
def test_no_tensor_of_all_pairs(fused, monkeypatch):
    monkeypatch.setattr(blocks, "BUDGET", 2**14)
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, 1, 512, 8, generator=draw).requires_grad_() for _ in range(3)]
    request = FUSED if fused else AuxRequest(lse=True, entropy=True, max_score=True)
    with Largest() as largest:
        out, aux = attention(*tensors, impl="native", return_aux=request)
        total = out.sum() + sum(t.sum() for t in aux if t is not None)
        torch.autograd.grad(total, tensors)
    assert 2**12 <= largest.numbers <= 2**15, "512 × 512 pairs are 2^18"


def test_transforms_are_refused_by_name():
    call = build_call(Case(1, queries=4, keys=4))

    others = call.inputs["key"], call.inputs["value"]

    def run(query):
        return attention(query, *others, impl="native", return_aux=AuxRequest(entropy=True))[0]

    with pytest.raises(ImplUnavailable, match="statistics of rows"):
        torch.func.jvp(run, (call.inputs["query"],), (call.inputs["query"],))


def test_the_oracle_agrees_on_entropy():
    call = build_call(Case(2, "dot", "tanh", queries=7, keys=7, dtype=torch.float64))
    _, aux = attention(
        **call.inputs, weight="tanh", impl="native", return_aux=AuxRequest(entropy=True)
    )
    answer = oracle.attend(
        *call.inputs.values(), keep=call.keep, **cases.formulas(call), dense=True
    )
    sizes = answer.weights.abs()
    shares = sizes / sizes.sum(-1, keepdim=True)
    torch.testing.assert_close(aux.entropy, -(shares * shares.log()).sum(-1), rtol=1e-12, atol=0)

"""Tensors that reach the compiled module but are not what they seem, and numbers at their ends."""

from __future__ import annotations

import sys
import warnings

import pytest
import torch
from torch import Tensor

from ogive.errors import ArgumentTypeError
from ogive.kernels import AuxRequest, attention, compiled, edge_attention
from ogive.kernels.checks import FAR
from ogive.parts import Sizes, build, score_from

pytestmark = pytest.mark.skipif(
    compiled.missing is not None, reason=f"no kernels were compiled here: {compiled.missing}"
)
MOST = 2**63 - 1


def inputs(queries=5, keys=7, batch=1, width=4, dtype=torch.float32) -> list[Tensor]:
    draw = torch.Generator().manual_seed(queries + keys)
    sizes = (queries, keys, keys)
    return [torch.randn(batch, 2, n, width, generator=draw, dtype=dtype) for n in sizes]


def results(tensors, impl, grad=torch.ones_like, **options) -> list[Tensor]:
    leaves = [t.detach().requires_grad_() for t in tensors]
    out = attention(*leaves, impl=impl, **options)
    return [out.detach(), *torch.autograd.grad(out, leaves, grad(out))]


def agree(one: list[Tensor], other: list[Tensor]) -> None:
    for mine, true in zip(one, other, strict=True):
        torch.testing.assert_close(mine, true, rtol=1e-5, atol=1e-6)


# --- zeros that are held nowhere ----------------------------------------------------------------


def nowhere(tensor: Tensor) -> Tensor:
    """Zeros as torch makes them for tangents: no memory holds them."""
    return torch._efficientzerotensor(tensor.shape, dtype=tensor.dtype)


@pytest.mark.parametrize("binding", ["exchange", "addresses"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("weight", ["softmax", "tanh"])
def test_zeros_that_no_memory_holds(weight, place, binding, monkeypatch):
    if compiled.binding == "addresses" != binding:
        pytest.skip("this torch offers no exchange")
    monkeypatch.setattr(compiled, "binding", binding)
    zeros, plain = inputs(), inputs()
    zeros[place], plain[place] = nowhere(zeros[place]), torch.zeros_like(plain[place])
    for _ in range(2):  # the second call could take the short way
        with torch.no_grad():
            found = attention(*zeros, weight=weight, impl="native")
            assert torch.equal(found, attention(*plain, weight=weight, impl="native"))


@pytest.mark.parametrize("weight", ["softmax", "tanh"])
def test_a_gradient_that_no_memory_holds(weight):
    for _ in range(2):
        assert not any(g.any() for g in results(inputs(), "native", nowhere, weight=weight)[1:])


@pytest.mark.parametrize("score", ["dot", "cosine"])
def test_zeros_over_edges_that_no_memory_holds(score):
    nodes = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    edges = torch.tensor([[0, 1, 2, 3], [1, 2, 3, 0]])
    zeros = nowhere(nodes)
    found = edge_attention(nodes, zeros, nodes, edges, score=score, impl="native")
    right = edge_attention(nodes, torch.zeros(4, 2, 3), nodes, edges, score=score, impl="native")
    assert torch.equal(found, right)


def test_the_module_refuses_memory_that_there_is_not():
    """Also by itself: a null address is never read."""
    x = torch.ones(1, 1, 2, 2)
    views = (nowhere(x), x, x, torch.empty_like(x), *[None] * 13)
    sizes, reals = (1, 1, 1, 2, 2, 2, 2, -1, -1, 1, 0, 0, 0, 0), (1.0, 0.0, 0.0, 0.0)
    if compiled.binding == "exchange":
        with pytest.raises(ValueError, match="in memory"):
            compiled._native.run("baseline", "softmax", False, False, views, sizes, reals)


def test_a_nested_tensor_of_four_axes_is_refused_by_name():
    """It has no shape, which the short way would ask for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prototype, torch says
        nested = torch.nested.as_nested_tensor([torch.ones(2, 3, 4), torch.ones(2, 5, 4)])
    for impl in ("native", "auto"):
        with pytest.raises(ArgumentTypeError, match="nested"):
            attention(nested, nested, nested, impl=impl)


def test_edges_of_a_sparse_matrix_are_its_indices():
    nodes = torch.ones(3, 1, 2)
    with pytest.raises(ArgumentTypeError, match=r"sparse_coo.*indices\(\)"):
        edge_attention(nodes, nodes, nodes, torch.eye(3, dtype=torch.int64).to_sparse())


# --- positions beyond every length ----------------------------------------------------------------


@pytest.mark.parametrize("impl", ["native", "reference", "chunked"])
@pytest.mark.parametrize("far", [FAR, 2**62, MOST, 2**70])
def test_offsets_beyond_every_length(far, impl):
    """A query that stands behind all keys sees them all, before all of them none."""
    tensors = inputs()
    after = results(tensors, impl, weight="tanh", is_causal=True, q_offset=far)
    agree(after, results(tensors, "reference", weight="tanh"))
    before = results(tensors, impl, is_causal=True, q_offset=-far)
    assert not any(t.any() for t in before)


@pytest.mark.parametrize("impl", ["native", "reference", "chunked"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.uint32])
def test_offsets_of_narrow_integers_do_not_wrap(dtype, impl):
    """Rows are computed in blocks: a later one's offset is 100 and more rows than int8 counts."""
    tensors = inputs(queries=1200, keys=1400)

    def seen(offsets: Tensor, name: str) -> list[Tensor]:
        asked = AuxRequest(row_sum=True, max_score=True)
        options = {"weight": "tanh", "is_causal": True, "return_aux": asked}
        out, aux = attention(*tensors, q_offset=offsets, impl=name, **options)
        return [out, aux.row_sum, aux.max_score]

    agree(seen(torch.tensor([100], dtype=dtype), impl), seen(torch.tensor([100]), "reference"))


@pytest.mark.parametrize("impl", ["native", "reference", "chunked"])
def test_an_offset_that_only_uint64_holds_is_beyond_every_length(impl):
    tensors = inputs()
    far = torch.tensor([MOST + 5], dtype=torch.uint64)
    found = results(tensors, impl, weight="tanh", is_causal=True, q_offset=far)
    agree(found, results(tensors, "reference", weight="tanh"))


@pytest.mark.parametrize("impl", ["native", "reference"])
@pytest.mark.parametrize("window", [(0, 0), (3, None), (None, 2)])
def test_offsets_of_each_batch_beyond_every_length(window, impl):
    tensors = inputs(batch=3)
    offsets = torch.tensor([MOST, -MOST - 1, 2])
    found = results(tensors, impl, window_size=window, q_offset=offsets)
    agree(
        [t[2:] for t in found],
        results([t[2:] for t in tensors], impl, window_size=window, q_offset=2),
    )
    seen = [window[0] is None, window[1] is None]
    for at, sees in enumerate(seen):
        plain = results([t[at : at + 1] for t in tensors], impl)
        agree([t[at : at + 1] for t in found], plain if sees else [t * 0 for t in plain])


@pytest.mark.parametrize("impl", ["native", "reference"])
@pytest.mark.parametrize("side", [FAR, sys.maxsize, 2**70])
def test_a_window_beyond_every_length_is_no_limit(side, impl):
    tensors = inputs(6, 6)
    agree(results(tensors, impl, window_size=(side, side)), results(tensors, impl))
    causal = results(tensors, impl, is_causal=True)
    agree(results(tensors, impl, window_size=(side, 0)), causal)
    agree(results(tensors, impl, window_size=(FAR - 1, 0)), causal)


# --- sizes beyond every memory --------------------------------------------------------------------


@pytest.mark.parametrize("weight", ["softmax", "tanh", "sparsemax"])
@pytest.mark.parametrize("keys", [2**46, 2**58, 2**60])
@pytest.mark.parametrize("threads", [1, 2])
def test_keys_expanded_beyond_memory_are_an_error(keys, weight, threads):
    """What a thread holds of them, in bytes, is no number of 64 bits, or more than there is."""
    key, query = torch.ones(1, 1, 1, 1).expand(1, 1, keys, 1), torch.ones(1, 4, 3, 1)
    options = {"window_size": (1, 1), "q_offset": 0, "enable_gqa": True}
    torch.set_num_threads(threads)
    try:
        with pytest.raises(MemoryError):
            attention(query, key, key, weight=weight, impl="native", **options)
    finally:
        torch.set_num_threads(1)


def test_features_expanded_beyond_memory_are_an_error():
    """Linear attention keeps width × value width numbers for each head."""
    wide, value = torch.ones(1, 1, 1, 1).expand(1, 1, 3, 2**44), torch.ones(1, 1, 3, 1024)
    with pytest.raises(MemoryError):
        attention(wide, wide, value, weight="linear(normalise=false)", impl="linear")


@pytest.mark.parametrize("score", ["dot", "additive(tanh)", "gatv2", "distance", "bilinear"])
def test_many_heads(score):
    heads = 3000
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, heads, n, 2, generator=draw) for n in (1, 3, 3)]
    made = score_from(score).setup(Sizes(heads * 2, heads, 2))
    options = {"score": made, "weight": build("weight", "tanh")}
    agree(results(tensors, "native", **options), results(tensors, "reference", **options))

"""T20: against other people's code, held to R1 with their error in eager's place."""

from __future__ import annotations

import math
from functools import cache

import entmax
import pytest
import torch
from torch.nn import functional as F
from torch.nn.attention.flex_attention import flex_attention
from torch_geometric.nn import GATConv, GATv2Conv

from kernels import cases
from kernels.cases import Case, build_call, random_case
from kernels.rule import violations
from kernels.wide import WIDER
from ogive.kernels import attention
from ogive.parts import Sizes, build, score_from

LENGTHS = (1, 2, 7, 8, 16, 17, 33, 64)


def against(call: cases.Call, run) -> None:
    """ours and theirs on the same call, ours within the rule with their error as eager's."""
    other, wider = cases.ours(call, "theirs", run), None
    if WIDER and call.case.dtype == torch.float64:
        wider = cache(lambda: cases.theirs_wider(call))
    for impl in cases.impls_of(call.case):
        found = cases.ours(call, impl)
        truth, nat = cases.theirs(call, torch.float64), cases.naturals(call)
        names = set(truth) & set(other)
        broken = violations(
            {n: found[n] for n in names},
            other,
            {n: truth[n] for n in names},
            nat,
            call.case.dtype,
            wider,
        )
        assert not broken, f"{impl} {call.case}: {broken}"


@pytest.mark.parametrize("chunk", range(5))
def test_torch_sdpa(chunk, count):
    """Bool mask, bias, causal and grouped heads through torch's own operation."""

    def sdpa(query, key, value, *, attn_mask=None, attn_bias=None, enable_gqa=False, scale=None,
             is_causal=False, **_):  # fmt: skip
        if is_causal:
            lower = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool).tril()
            attn_mask = lower if attn_mask is None else attn_mask & lower
        if attn_bias is not None:
            attn_mask = (
                attn_bias if attn_mask is None else attn_bias.masked_fill(~attn_mask, -torch.inf)
            )
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, enable_gqa=enable_gqa, scale=scale
        )

    done, seed = 0, chunk * 1000
    while done < 24:
        seed += 1
        case = random_case(
            seed,
            LENGTHS,
            score="dot",
            weight="softmax",
            causal=("none", "square")[seed % 2],
            window=None,
            mask=("none", "bool", "learned bias", "both")[seed % 4],
            dtype=(torch.float32, torch.float32, torch.float64, torch.bfloat16)[seed // 4 % 4],
        )
        against(build_call(case), sdpa)
        done += 1
    count("T20", done)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("seed", range(30))
def test_flex_attention_forward(seed, count):
    """Eager FlexAttention has no backward on the CPU: values alone, with a score modification."""
    capped = seed % 2 == 1
    score = "dot,softcap(2)" if capped else "dot"
    case = random_case(
        seed, LENGTHS, score=score, weight="softmax", causal="none", window=None, mask="none",
        dtype=torch.float32,
    )  # fmt: skip
    call = build_call(case)

    def soften(s, b, h, i, j):
        return 2 * torch.tanh(s / 2)

    other = flex_attention(
        **call.inputs,
        score_mod=soften if capped else None,
        scale=case.scale,
        enable_gqa=case.group > 1,
    )
    truth = {"out": cases.theirs(call, torch.float64)["out"]}
    for impl in cases.impls_of(case):
        found = {"out": cases.ours(call, impl)["out"]}
        assert not violations(found, {"out": other}, truth, cases.naturals(call), torch.float32), (
            str(case)
        )
    count("T20", 1)


@pytest.mark.parametrize("weight", ["sparsemax", "entmax15"])
@pytest.mark.parametrize("chunk", range(5))
def test_entmax(weight, chunk, count):
    """The entmax package, on rows that see at least one key (it has no answer for the others)."""
    function = getattr(entmax, weight)

    def theirs(query, key, value, *, score, attn_mask=None, scale=None, attn_bias=None, **_):
        scores = score(query, key, scale)
        if attn_bias is not None:
            scores = scores + attn_bias
        if attn_mask is not None:
            scores = scores.masked_fill(~attn_mask, -1e9)
        return function(scores, dim=-1) @ value

    done, seed = 0, chunk * 1000
    while done < 10:
        seed += 1
        case = random_case(
            seed, LENGTHS, score="dot", weight=weight, causal="none", window=None, group=1,
            mask=("none", "bool", "learned bias", "both")[seed % 4],
            dtype=(torch.float32, torch.float64)[seed % 2],
        )  # fmt: skip
        call = build_call(case)
        if not call.keep.any(-1).all():
            continue
        against(call, theirs)
        done += 1
    count("T20", done)


@pytest.mark.parametrize("version", [GATConv, GATv2Conv])
@pytest.mark.parametrize("seed", range(25))
def test_graph_attention_on_a_complete_graph(version, seed, count):
    """PyTorch Geometric's layers, their weights copied into ours: values and input gradients."""
    torch.manual_seed(seed)
    nodes, width, heads = 2 + seed % 9, 3 + seed % 5, 1 + seed % 4
    layer = version(7, width, heads, bias=False, add_self_loops=False).eval()
    x = torch.randn(nodes, 7)
    grad = torch.randn(nodes, heads * width)
    edges = torch.cartesian_prod(torch.arange(nodes), torch.arange(nodes)).T

    def theirs(dtype):
        leaf = x.to(dtype).requires_grad_()
        out = layer.to(dtype)(leaf, edges)
        return {"out": out.detach(), "x": torch.autograd.grad(out, leaf, grad.to(dtype))[0]}

    truth, other = theirs(torch.float64), theirs(torch.float32)
    mine = graph_attention(layer, x, heads, width, grad)
    for name in truth:
        gap = (mine[name].double() - truth[name]).abs().max()
        allowed = 2 * (other[name].double() - truth[name]).abs().max()
        size = truth[name].abs().max() * (1 + math.log2(nodes * width))
        assert gap <= allowed + torch.finfo(torch.float32).eps * size * 4, f"{name}: {gap}"
    count("T20", 1)


def graph_attention(layer, x, heads, width, grad):
    """The same layer by `attention`: projections outside, the score and softmax inside."""
    leaf = x.clone().requires_grad_()
    sizes = Sizes(heads * width, heads, width)

    def split(tensor):
        return tensor.view(1, -1, heads, width).transpose(1, 2)

    if isinstance(layer, GATv2Conv):
        source = split(F.linear(leaf, layer.lin_l.weight, layer.lin_l.bias))
        target = split(F.linear(leaf, layer.lin_r.weight, layer.lin_r.bias))
        score = score_from("gatv2").setup(sizes)
        score.weight.data = layer.att[0].detach()
    else:
        source = target = split(F.linear(leaf, layer.lin.weight))
        score = score_from("gat").setup(sizes)
        score.query_weight.data = layer.att_dst[0].detach()
        score.key_weight.data = layer.att_src[0].detach()
    out = attention(target, source, source, score=score)
    out = out.transpose(1, 2).reshape(x.shape[0], -1)
    return {"out": out.detach(), "x": torch.autograd.grad(out, leaf, grad)[0]}


@pytest.mark.parametrize("seed", range(30))
def test_multihead_attention_slow_path(seed, count):
    """torch's layer in training mode (no fast path), its weights around our operation."""
    torch.manual_seed(seed)
    heads, width = 1 + seed % 4, 4 + seed % 3
    layer = torch.nn.MultiheadAttention(heads * width, heads, batch_first=True)
    x, memory = torch.randn(2, 5, heads * width), torch.randn(2, 6 + seed % 3, heads * width)
    hidden = torch.rand(2, memory.shape[1]) > 0.7
    hidden[:, 0] = False
    grad = torch.randn_like(x)

    def theirs(dtype):
        leaf = x.to(dtype).requires_grad_()
        out = layer.to(dtype)(
            leaf, memory.to(dtype), memory.to(dtype), key_padding_mask=hidden, need_weights=True
        )[0]
        return {"out": out.detach(), "x": torch.autograd.grad(out, leaf, grad.to(dtype))[0]}

    truth, other = theirs(torch.float64), theirs(torch.float32)
    leaf = x.clone().requires_grad_()
    weights = layer.in_proj_weight.chunk(3)
    biases = layer.in_proj_bias.chunk(3)
    q, k, v = (
        F.linear(t, w, b).unflatten(-1, (heads, width)).transpose(1, 2)
        for t, w, b in zip((leaf, memory, memory), weights, biases, strict=True)
    )
    # True means "drop" in torch's layer and "may attend" here.
    for impl in ("reference", "sdpa"):
        mixed = attention(q, k, v, attn_mask=~hidden[:, None, None], impl=impl)
        out = layer.out_proj(mixed.transpose(1, 2).flatten(2))
        mine = {
            "out": out.detach(),
            "x": torch.autograd.grad(out, leaf, grad, retain_graph=True)[0],
        }
        for name in truth:
            gap = (mine[name].double() - truth[name]).abs().max()
            allowed = 2 * (other[name].double() - truth[name]).abs().max()
            size = truth[name].abs().max() * (1 + math.log2(heads * width))
            assert gap <= allowed + torch.finfo(torch.float32).eps * size * 4, f"{name}: {gap}"
    count("T20", 2)


def test_a_wrong_polarity_would_show():
    """The comparison above is not blind to the mask."""
    call = build_call(Case(1, mask="bool", broadcast="j", keys=6))
    mask = call.options["attn_mask"]
    assert mask.any()
    assert not mask.all()
    flipped = attention(**call.inputs, attn_mask=~mask)
    assert not torch.allclose(flipped, attention(**call.inputs, attn_mask=mask))
    assert build("weight", "softmax").name == "softmax"

"""What "auto" takes: the kernels wherever they were measured best, blocks where pairs are many."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from kernels import own_parts, peak
from ogive.kernels import AuxRequest, attention, blocks, compiled, edge_attention, last_impl
from ogive.kernels.call import Call
from ogive.kernels.visible import Visibility
from ogive.parts import Sizes, build, score_from

wide = pytest.mark.skipif(
    bool(compiled.missing) or compiled.instruction_set not in ("avx2", "avx512"),
    reason="the kernels were measured on AVX2 and AVX-512",
)
LENGTHS = ((1, 64), (1, 1024), (16, 1024), (40, 1024), (64, 64))
WEIGHTS = ("tanh", "entmax15", "sigmoid(bias=-log_n)", "softmax")
SCORES = ("dot", "distance(power=1)", "additive(tanh)", "gatv2")


def drawn(queries: int, keys: int, heads: int = 2, width: int = 4) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    lengths = (queries, keys, keys)
    return [torch.randn(1, heads, n, width, generator=draw).requires_grad_() for n in lengths]


@wide
@pytest.mark.parametrize("lengths", LENGTHS)
@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
def test_gradients_of_few_queries_and_many_keys(score, weight, lengths):
    part = score_from(score).setup(Sizes(8, 2, 4))
    attention(*drawn(*lengths), score=part, weight=weight)
    assert last_impl() == "native"


@wide
@pytest.mark.parametrize("queries", [1, 4])
def test_masked_gradients_of_few_queries(queries):
    tensors = drawn(queries, 30)
    attention(*tensors, attn_mask=torch.ones(queries, 30, dtype=torch.bool))
    assert last_impl() == "native"


@wide
@pytest.mark.parametrize("request_", [AuxRequest(lse=True), AuxRequest(lse=True, entropy=True)])
def test_lse_beside_softmax_costs_nothing(request_):
    attention(*drawn(8, 8), return_aux=request_)
    assert last_impl() == ("reference" if request_.entropy else "native")


@wide
def test_rows_of_weights_do_not_bring_all_weights():
    request = AuxRequest(weights_rows=[0])
    attention(*drawn(32, 32), score="dot", return_aux=request)
    assert last_impl() == "native"


OWN = {"weight": own_parts.Steep(), "score": own_parts.Manhattan()}


@pytest.mark.parametrize("request_", [None, AuxRequest(lse=True, row_sum=True)])
def test_the_users_own_parts_run_in_blocks_where_pairs_are_many(request_, monkeypatch):
    monkeypatch.setattr(blocks, "BUDGET", 200)
    for length, expected in ((4, "reference"), (50, "chunked")):
        attention(*drawn(length, length), return_aux=request_, **OWN)
        assert last_impl() == expected


def test_the_users_own_parts_take_linear_memory():
    few, many = (peak.over_baseline(own=True, length=n) for n in (4096, 8192))
    assert many - few < 4 * 8192**2 / 4


class Apart(own_parts.Score, listed=False):
    """Minus the sum of absolute differences, with a number for each pair and feature on the way."""

    name = "apart"

    def pairs(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return -(query.unsqueeze(-2) - key.unsqueeze(-3)).abs().sum(-1)


def test_blocks_are_as_small_as_the_users_own_score_needs():
    few, many = drawn(100, 100, width=4), drawn(100, 100, width=64)
    parts = ((Apart(), True), (own_parts.Manhattan(), False), (score_from("dot"), False))
    for part, features in parts:
        for tensors in (few, many):
            found = call_of(*tensors, part)
            width = tensors[0].shape[-1] if features else 1
            assert blocks.row_size(found) == 2 * 100 * width


def call_of(query, key, value, score) -> Call:
    nothing = dict.fromkeys(("bias", "scale", "seed", "aux"))
    return Call(query, key, value, score, own_parts.Steep(), Visibility(), dropout_p=0.0, **nothing)


@wide
@pytest.mark.parametrize("weight", ["tanh", "softmax"])
def test_statistics_of_additive_scores_take_linear_memory(weight):
    """One tensor of 2048 × 2048 pairs of 16 features would be 268 MB."""
    asked = {"length": 2048, "score": "additive(tanh)", "weight": weight, "asks": ["row_sum"]}
    assert peak.over_baseline(**asked) < 2**27


def shifted(examples: slice, tensors: list[torch.Tensor], **options) -> torch.Tensor:
    mask = torch.arange(3 * 20 * 20).view(3, 1, 20, 20) % 7 > 0
    bias = torch.linspace(-1, 1, 3 * 20).view(3, 1, 1, 20)
    part = [t[examples] for t in tensors]
    options |= {"attn_mask": mask[examples], "attn_bias": bias[examples], "is_causal": True}
    return attention(*part, q_offset=torch.tensor([0, 3, 5])[examples], **OWN, **options)


def test_blocks_of_examples_have_the_bits_of_examples_alone(monkeypatch):
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(3, 2, 20, 4, generator=draw) for _ in range(3)]
    for budget in (60, 900):  # examples are cut; or one at a time
        monkeypatch.setattr(blocks, "BUDGET", budget)
        whole = shifted(slice(0, 3), tensors, impl="chunked")
        alone = [shifted(slice(at, at + 1), tensors, impl="chunked") for at in range(3)]
        assert torch.equal(whole, torch.cat(alone))
        right = shifted(slice(0, 3), tensors, impl="reference")
        torch.testing.assert_close(whole, right)


@pytest.mark.parametrize("budget", [40, 900])
def test_blocks_drop_the_same_weights_as_the_definition(budget, monkeypatch):
    monkeypatch.setattr(blocks, "BUDGET", budget)
    draw = torch.Generator().manual_seed(0)
    tensors = [torch.randn(3, 2, 20, 4, generator=draw) for _ in range(3)]
    found = []
    for impl in ("chunked", "reference"):
        torch.manual_seed(1)
        leaves = [t.clone().requires_grad_() for t in tensors]
        out = attention(*leaves, dropout_p=0.4, impl=impl, **OWN)
        found.append((out, *torch.autograd.grad(out.sin().sum(), leaves)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


# --- what blocks must carry along --------------------------------------------------------------


class Tempered(own_parts.ElementwiseWeight, listed=False):
    """w = σ(t · s) / n with a t that is a parameter, and another that somebody else owns."""

    name = "tempered"

    def __init__(self) -> None:
        super().__init__()
        self.heat = torch.nn.Parameter(torch.tensor(0.5))
        self.others = [torch.tensor(2.0, requires_grad=True)]

    def value(self, scores: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(scores * self.heat * self.others[0].exp()) / n


def test_blocks_give_gradients_to_whatever_a_part_holds(monkeypatch):
    monkeypatch.setattr(blocks, "BUDGET", 60)
    found = []
    for impl in ("chunked", "reference"):
        part, tensors = Tempered(), drawn(20, 20)
        attention(*tensors, weight=part, impl=impl).square().sum().backward()
        assert part.heat.grad is not None
        assert part.others[0].grad is not None
        found.append([*(t.grad for t in tensors), part.heat.grad, part.others[0].grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("hides", [False, True])
def test_second_derivatives_of_blocks(hides, monkeypatch):
    monkeypatch.setattr(blocks, "BUDGET", 8)
    draw = torch.Generator().manual_seed(0)
    part = Tempered().double()
    tensors = [torch.randn(2, 1, 6, 2, generator=draw).double().requires_grad_() for _ in range(3)]
    options = {"attn_mask": torch.rand(2, 1, 6, 6, generator=draw) > 0.3} if hides else {}

    def run(*inputs):
        return attention(*inputs, weight=part, impl="chunked", **options)

    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)


def test_a_mask_that_changed_before_gradients_is_told(monkeypatch):
    monkeypatch.setattr(blocks, "BUDGET", 60)
    mask = torch.ones(20, 20, dtype=torch.bool)
    out = attention(*drawn(20, 20), attn_mask=mask, impl="chunked", **OWN)
    mask[3] = False
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_halves_are_summed_in_single_precision(monkeypatch):
    """Gradients of keys are sums over blocks, rounded once."""
    monkeypatch.setattr(blocks, "BUDGET", 60)
    found = []
    for impl in ("chunked", "reference"):
        leaves = [t.detach().bfloat16().requires_grad_() for t in drawn(200, 20)]
        attention(*leaves, impl=impl, **OWN).float().sin().sum().backward()
        found.append([t.grad for t in leaves])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=2**-7, atol=1e-6)


class Noisy(own_parts.ElementwiseWeight, listed=False):
    """w = σ(s) · u / n with u drawn anew for every pair."""

    name = "noisy"

    def value(self, scores: torch.Tensor, n: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(scores) * torch.rand_like(scores) / n


def test_what_a_part_draws_is_drawn_again_for_gradients(monkeypatch):
    monkeypatch.setattr(blocks, "BUDGET", 60)
    query, key, value = drawn(20, 20)
    torch.manual_seed(0)
    out = attention(query, key, value, weight=Noisy(), impl="chunked")
    after = torch.get_rng_state()
    (found,) = torch.autograd.grad(out.sum(), value)
    assert torch.equal(after, torch.get_rng_state())
    torch.manual_seed(0)
    ones = torch.eye(20).expand(1, 2, 20, 20)
    weights = attention(query, key, ones, weight=Noisy(), impl="chunked")
    torch.testing.assert_close(found, weights.sum(-2, keepdim=True).mT.expand_as(found))


@pytest.mark.parametrize("impl", ["auto", "native", "sdpa"])
@pytest.mark.parametrize("site", ["score", "weight"])
def test_hooks_of_parts_run_or_are_refused(site, impl):
    parts = {"score": score_from("dot"), "weight": build("weight", "softmax")}
    seen = []
    parts[site].register_forward_hook(lambda *_: seen.append(1))
    for _ in range(2):  # the second call would go the short way
        if impl == "auto":
            attention(*drawn(5, 5), **parts)
        else:
            with pytest.raises(RuntimeError, match="hooks"):
                attention(*drawn(5, 5), **parts, impl=impl)
    assert len(seen) == (2 if impl == "auto" else 0)


# --- parts that do not make one number for each pair -------------------------------------------


class Narrow(own_parts.ElementwiseWeight, listed=False):
    """One weight for a row, which would broadcast."""

    name = "narrow"

    def forward(self, scores: torch.Tensor, keep: torch.Tensor | None) -> torch.Tensor:
        return scores.sum(-1, keepdim=True)


class Wide(own_parts.Score, listed=False):
    """One score too many."""

    name = "wide"

    def pairs(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return query.new_zeros((*query.shape[:3], key.shape[2] + 1))


@pytest.mark.parametrize(("site", "part"), [("weight", Narrow()), ("score", Wide())])
def test_parts_that_make_another_shape_are_told(site, part):
    with pytest.raises(ValueError, match=rf"{site}={part.name} made .*pair"):
        attention(*drawn(5, 6), **{site: part})
    nodes = [torch.ones(6, 2, 4) for _ in range(3)]
    with pytest.raises(ValueError, match=rf"{site}={part.name} made .*pair"):
        edge_attention(*nodes, torch.tensor([[0, 1, 2], [3, 3, 3]]), **{site: part})


# --- torch's softmax under "auto" ---------------------------------------------------------------


def graph_keeps(alive: bool) -> bool:
    """Whether inputs outlive their names while the graph of a small masked softmax does."""
    leaf = torch.randn(1, 2, 6, 4, requires_grad=True)
    mask = torch.ones(6, 6, dtype=torch.bool).tril()

    def run(x: torch.Tensor) -> torch.Tensor:
        query = x * 2
        seen.append(weakref.ref(query.untyped_storage()))
        return attention(query, query + 1, query, attn_mask=mask).sum()

    seen: list[weakref.ref] = []
    out = run(leaf) if alive else checkpoint(run, leaf, use_reentrant=False)
    assert last_impl() == "sdpa"
    held = seen[0]() is not None
    out.backward()
    return held


@wide
def test_checkpointing_lets_go_of_what_second_derivatives_would_need():
    assert graph_keeps(alive=True)
    assert not graph_keeps(alive=False)

"""Compiled additive scores: every activation, every width, magnitudes at which exponentials fail.

A pair of numbers goes one of two ways, by their sizes. Either way rule R1 holds, and no hidden
number changes a bit. Scores made as one would first make them (exponentials clamped, or the form
with 1 − … of tiny numbers, one way for a whole tile, no gradient for the vectors) break that.
"""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kernels import cases, oracle
from kernels.cases import Case, build_call, random_case
from ogive.errors import ImplUnavailable
from ogive.kernels import attention, compiled
from ogive.parts import Score, Sizes, build, catalogue
from ogive.parts.maps import Activation

pytestmark = pytest.mark.skipif(bool(compiled.missing), reason=str(compiled.missing))

SETS = [] if compiled.missing else compiled.supported()
WIDTHS = (1, 2, 3, 7, 8, 9, 17, 33, 64, 100)
TILES = (47, 49, 127, 129, 200)
"""Around the rows and columns of a tile."""
REFUSED = ("exp", "power")
SIZES = (1e-30, 1e-12, 1e-4, 1e-2, 0.3, 3.0, 12.0, 30.0, 1e3, 1e8, 1e16)
WEIGHTS = ("softmax", "identity(length_power=1)", "sigmoid(bias=-log_n)", "tanh")


def additive_case(seed: int, score: str, **fixed) -> Case:
    """A random case of a score, some with rows longer than a tile; fp64 needs the wider oracle."""
    pick = random.Random(seed)
    drawn = {"width": pick.choice(WIDTHS), "dtype": torch.float32, **fixed}
    case = random_case(seed, score=score, **drawn)
    if seed % 5:
        return case
    queries = pick.choice(TILES)
    keys = queries if case.causal == "square" or case.window else pick.choice(TILES)
    return replace(case, queries=queries, keys=keys, batch=1, heads=case.group)


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("act", oracle.ACTIVATIONS)
def test_every_activation_keeps_the_rule(act, instructions, monkeypatch, count, nan_memory):
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    first = 3_000_000 + 1_000 * list(oracle.ACTIVATIONS).index(act)
    lines = []
    for seed in range(first, first + 12):
        call = build_call(additive_case(seed, f"additive({act})"))
        lines += cases.broken_by(call, ("native",))
    assert not lines, "\n".join(lines)
    count("additive", 12)


@pytest.mark.parametrize("act", ["tanh", "leaky_relu", "sigmoid", "relu"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_types(act, dtype, count):
    lines = []
    for seed in range(3_100_000, 3_100_008):
        call = build_call(additive_case(seed, f"additive({act})", dtype=dtype))
        lines += cases.broken_by(call, ("native",))
    assert not lines, "\n".join(lines)
    count("additive", 8)


def test_what_is_refused_is_named():
    """The catalogue's activations are all tried above, or refused by name."""
    named = {n for n, c in catalogue("map").items() if issubclass(c, Activation)}
    assert named == set(oracle.ACTIVATIONS) | set(REFUSED)
    q = torch.randn(1, 2, 3, 4)
    for act in ("exp", "power(2)"):
        score = build("score", f"additive({act})").setup(Sizes(8, 2, 4))
        with pytest.raises(ImplUnavailable, match=act.split("(")[0]):
            attention(q, q, q, score=score, impl="native")


# --- magnitudes -------------------------------------------------------------------------------


def sized_call(act: str, weight: str, size: float, apart: float, seed: int) -> cases.Call:
    """Queries near `size` and keys near `apart` (a negative one stands against them)."""
    case = Case(
        seed, f"additive({act})", weight, queries=9, keys=19, width=6, value_width=3, size=1.0
    )
    call = build_call(case)
    for name, about in (("query", size), ("key", apart)):
        drawn = call.inputs[name]
        # Far from zero the numbers spread by a few units, so that their sums do not all saturate;
        # where they would, the first rows stay small: of slopes that are all below its own
        # rounding the oracle says 0.
        near = drawn * about if abs(about) <= 1 else about + drawn * min(abs(about), 2.0)
        near[:, :, 0] = drawn[:, :, 0] * min(abs(about), 1.0)
        call.inputs[name] = near.to(drawn.dtype)
    return call


@pytest.mark.parametrize("half", [1.0, 2.5, 5.5, 8.0, 11.0, 13.0, 17.0, 19.5])
@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_slopes_of_saturated_sums_keep_their_digits(act, half, count):
    """The slope at half + half, where 1 − f² is 0 long before the slope is."""
    score = build("score", f"additive({act})").setup(Sizes(3, 1, 3))
    q, k = (torch.full((1, 1, 4, 3), half, requires_grad=True) for _ in range(2))
    v = torch.ones(1, 1, 4, 1)
    out = attention(q, k, v, score=score, weight="linear(normalise=false)", impl="native")
    found = torch.autograd.grad(out.sum(), (q, k))
    x = 2 * torch.tensor(half, dtype=torch.float64)
    slope = x.cosh() ** -2 if act == "tanh" else torch.exp(-x) / (1 + torch.exp(-x)) ** 2
    expected = 4 * score.weight.detach().double() * slope
    for grad in found:
        torch.testing.assert_close(
            grad.double(), expected.view(1, 1, 1, 3).expand(1, 1, 4, 3), rtol=3e-6, atol=0.0
        )
    count("additive", 1)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("act", ["tanh", "sigmoid", "leaky_relu", "silu"])
def test_magnitudes_and_opposite_signs(act, weight, count):
    lines, done = [], 0
    for size in SIZES:
        for apart in (size, -size, -size / 2, 1e-3):
            call = sized_call(act, weight, size, apart, 31)
            found = cases.broken_by(call, ("native",))
            lines += [f"{size:g} against {apart:g}: {line}" for line in found]
            done += 1
    assert not lines, "\n".join(lines)
    count("additive", done)


@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_one_number_out_of_range_among_many(act, count):
    """A pair of numbers goes by the curve, its neighbours by shared exponentials."""
    lines = []
    for size in (13.0, 21.0, 60.0, 1e4, 1e18):
        for sign in (1, -1):
            call = build_call(Case(33, f"additive({act})", queries=50, keys=130, width=5))
            call.inputs["query"][0, 1, 7, 3] = sign * size
            call.inputs["key"][0, 1, 129, 3] = -sign * size * (1 + 1e-3)
            call.inputs["key"][0, 0, 5, 0] = sign * size
            lines += cases.broken_by(call, ("native",))
    assert not lines, "\n".join(lines)
    count("additive", 10)


@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_any_feature_may_be_the_one_out_of_range(act, count):
    """Four features share a division; each of them is looked at."""
    lines = []
    for feature in range(6):
        for size in (10.0, 13.0, 40.0):
            call = build_call(Case(35, f"additive({act})", queries=20, keys=30, width=6))
            call.inputs["query"][..., feature] *= size
            call.inputs["key"][..., feature] *= -size
            lines += cases.broken_by(call, ("native",))
    assert not lines, "\n".join(lines)
    count("additive", 18)


@pytest.mark.parametrize("size", [1e-30, 1e-6, 300.0, 1e6])
def test_vectors_of_every_size(size, count):
    lines = []
    for weight in ("softmax", "identity(length_power=1)"):
        call = build_call(Case(34, "additive(tanh)", weight, queries=20, keys=30, width=7))
        call.score.weight.data *= size
        lines += cases.broken_by(call, ("native",))
    assert not lines, "\n".join(lines)
    count("additive", 2)


# --- what is hidden ----------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["tanh", "leaky_relu", "gelu"])
def test_tiles_that_hide_everything_and_a_hidden_nan(act, count):
    """Blocks of a block mask are skipped; NaN and infinity in them reach nothing."""
    score = build("score", f"additive({act})").setup(Sizes(16, 2, 8))
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, 300, 8, generator=draw) for _ in range(3))
    keep = torch.zeros(300, 300, dtype=torch.bool)
    keep[:100, :140] = True
    keep[200:, 290:] = True  # rows 100 … 199 see nothing, keys 140 … 289 are seen by none
    results = []
    for bad in (0.0, torch.nan, torch.inf):
        leaves = [t.clone() for t in (q, k, v)]
        for tensor in leaves[1:]:
            tensor[:, :, 150:250] = torch.where(torch.tensor(bad) == 0, tensor[:, :, 150:250], bad)
        leaves[0][:, :, 120] = bad
        leaves = [t.requires_grad_() for t in leaves]
        out = attention(*leaves, score=score, attn_mask=keep, impl="native")
        grads = torch.autograd.grad(out.sum(), [*leaves, score.weight])
        results.append((out, *grads))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    assert not results[0][0][:, :, 100:200].any()
    assert not results[0][2][:, :, 140:290].any()
    count("additive", 3)


def under_a_mask(score: Score, keep: Tensor, hidden: float, impl: str) -> list[Tensor]:
    """Output and gradients where the pairs that `keep` hides from all are of some size."""
    draw = torch.Generator().manual_seed(3)
    q, k = (torch.randn(1, 2, n, 9, generator=draw) for n in keep.shape)
    v = torch.randn(1, 2, keep.shape[1], 4, generator=draw)
    for tensor, seen in ((q, keep.any(1)), (k, keep.any(0))):
        tensor[:, :, ~seen] = hidden * torch.randn(tensor[:, :, ~seen].shape, generator=draw)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    out = attention(*leaves, score=score, attn_mask=keep, impl=impl)
    return [out, *torch.autograd.grad(out.square().sum(), [*leaves, score.weight])]


def hidden_mask() -> Tensor:
    """Scattered pairs, and rows and columns without any, next to others that have some."""
    keep = torch.rand(101, 140, generator=torch.Generator().manual_seed(4)) < 0.6
    keep[::3] = False
    keep[:, 1::4] = False
    return keep


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("act", ["tanh", "sigmoid", "leaky_relu", "gelu"])
def test_no_form_follows_from_hidden_numbers(act, instructions, monkeypatch, count):
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    score = build("score", f"additive({act})").setup(Sizes(18, 2, 9))
    results = [
        under_a_mask(score, hidden_mask(), size, "native") for size in (1e-6, 1.0, 14.0, 50.0, 1e6)
    ]
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
    count("additive", len(results))


@pytest.mark.parametrize("act", ["tanh", "sigmoid"])
def test_the_past_has_no_form_from_the_future(act, count):
    """A large later key, which some rows of a tile see, changes no bit of those that do not."""
    score = build("score", f"additive({act})").setup(Sizes(18, 2, 9))
    draw = torch.Generator().manual_seed(5)
    q, k, v = (torch.randn(1, 2, 40, 9, generator=draw) for _ in range(3))
    found = []
    for size in (1.0, 13.0, 100.0):
        later = k.clone()
        later[:, :, 30:] *= size
        query = q.clone().requires_grad_()
        out = attention(query, later, v, score=score, is_causal=True, impl="native")
        out.square().sum().backward()
        found.append((out[:, :, :30], query.grad[:, :, :30]))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    count("additive", len(found))


@pytest.mark.parametrize("act", ["tanh", "sigmoid", "leaky_relu", "softplus"])
def test_bits_depend_on_no_threads_and_no_batch(act, count):
    """One head with long rows is shared among threads, and vectors sum in a fixed order."""
    score = build("score", f"additive({act})").setup(Sizes(17, 1, 17))
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 1, n, 17, generator=draw) for n in (210, 530, 530))
    before, found = torch.get_num_threads(), []

    def run(*tensors: Tensor) -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in tensors]
        out = attention(*leaves, score=score, impl="native")
        return [out.detach(), *torch.autograd.grad(out.square().sum(), [*leaves, score.weight])]

    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(run(q, k, v))
        one = run(q[1:2], k[1:2], v[1:2])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))
    assert all(torch.equal(a[1:2], b) for a, b in zip(found[0][:4], one[:4], strict=True))
    count("additive", 4)


@pytest.mark.parametrize("act", ["tanh", "sigmoid", "elu", "mish"])
def test_gradients_of_the_kernels_themselves(act, count):
    score = build("score", f"additive({act})").setup(Sizes(10, 2, 5)).double()
    draw = torch.Generator().manual_seed(2)
    q, k, v = (
        torch.randn(1, h, n, 5, generator=draw, dtype=torch.float64, requires_grad=True)
        for h, n in ((2, 4), (1, 6), (1, 6))
    )
    bias = torch.randn(4, 6, generator=draw, dtype=torch.float64, requires_grad=True)

    vectors = score.weight.detach().clone().requires_grad_()
    del score.weight  # a parameter; what stands in its place may be any tensor

    def run(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, vectors: Tensor) -> Tensor:
        score.weight = vectors
        return attention(q, k, v, score=score, attn_bias=bias, enable_gqa=True, impl="native")

    assert torch.autograd.gradcheck(run, (q, k, v, bias, vectors))
    count("additive", 1)


# --- wrong twins ------------------------------------------------------------------------------


class Twin(Score, listed=False):
    """additive(tanh) with something wrong; a member writes `curve`."""

    def __init__(self, right: Score) -> None:
        super().__init__()
        self.weight = right.weight

    def curve(self, q: Tensor, k: Tensor) -> Tensor:
        raise NotImplementedError

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        each = self.curve(query.unsqueeze(-2), key.unsqueeze(-3))
        return torch.einsum("bhijd,hd->bhij", each, self.weight.to(each.dtype))


class Clamped(Twin, listed=False):
    """Exponentials of what is clamped to ±20: 30 − 29 reads 0."""

    def curve(self, q: Tensor, k: Tensor) -> Tensor:
        return 1 - 2 / (1 + torch.exp(2 * q.clamp(-20, 20)) * torch.exp(2 * k.clamp(-20, 20)))


class Plain(Twin, listed=False):
    """1 − 2 / (1 + e^2q e^2k) of tiny numbers: a rounding of 1 is larger than they are."""

    def curve(self, q: Tensor, k: Tensor) -> Tensor:
        return 1 - 2 / (1 + torch.exp(2 * q) * torch.exp(2 * k))


class Addition(Twin, listed=False):
    """(tanh q + tanh k) / (1 + tanh q tanh k): nothing is left where both saturate."""

    def curve(self, q: Tensor, k: Tensor) -> Tensor:
        q, k = torch.tanh(q), torch.tanh(k)
        return (q + k) / (1 + q * k)


class NoVectors(Twin, listed=False):
    """The vectors get no gradient."""

    def pairs(self, query: Tensor, key: Tensor) -> Tensor:
        sums = query.unsqueeze(-2) + key.unsqueeze(-3)
        return torch.einsum("bhijd,hd->bhij", torch.tanh(sums), self.weight.detach())


class OneWay(Twin, listed=False):
    """By exponentials where all numbers are small, by the formula where one is not."""

    def curve(self, q: Tensor, k: Tensor) -> Tensor:
        if max(q.abs().max(), k.abs().max()) > 12:
            return torch.tanh(q + k)
        u, power = torch.exp(2 * q), torch.exp(-2 * k)
        return ((u - 1) - (power - 1)) / (u + power)


def test_one_way_for_a_whole_tile_is_caught(record_property):
    score = build("score", "additive(tanh)").setup(Sizes(18, 2, 9))
    near, far = (
        under_a_mask(OneWay(score), hidden_mask(), size, "reference") for size in (1.0, 50.0)
    )
    assert not all(torch.equal(a, b) for a, b in zip(near, far, strict=True))
    record_property("twin", "additive OneWay")


@pytest.mark.parametrize(
    ("twin", "size", "apart"),
    [(Clamped, 30.0, -29.0), (Plain, 1e-4, 1e-4), (Addition, 9.0, -9.0), (NoVectors, 1.0, 1.0)],
)
def test_a_wrong_score_is_caught(twin, size, apart, record_property):
    call = sized_call("tanh", "identity(length_power=1)", size, apart, 35)
    assert not cases.broken_by(call, ("native",))

    def run(*, score: Score, impl: str, **rest):
        return attention(score=twin(score), impl=impl, **rest)

    found = cases.ours(call, "reference", run)
    assert cases.broken(call, {"twin": found})
    record_property("twin", f"additive {twin.__name__}")

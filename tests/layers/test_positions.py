"""Positions: each against its formula, written out in plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from layers.cases import HEADS, WIDTH, close, drawn, shaken
from ogive.errors import ArgumentError, UnknownName
from ogive.layers import Attention
from ogive.layers.positions import alibi_slopes, build_position
from ogive.parts import Sizes


def made(written, head_width=8, heads=2, **more):
    return build_position(written).setup(Sizes(heads * head_width, heads, head_width), **more)


def test_rope_turns_pairs_half_a_head_apart():
    h = drawn(1, 5, 2, 8)
    came = made("rope(base=100)").turn(h, 3)
    for t in range(5):
        for i in range(4):
            angle = (t + 3) * 100 ** (-2 * i / 8)
            pair = torch.complex(h[0, t, :, i], h[0, t, :, i + 4])
            turned = pair * complex(math.cos(angle), math.sin(angle))
            close(came[0, t, :, i], turned.real)
            close(came[0, t, :, i + 4], turned.imag)


@pytest.mark.parametrize("shift", [1, 17, 1000])
def test_rope_scores_depend_on_the_distance_alone(shift):
    rope, q, k = made("rope"), drawn(1, 6, 2, 8), drawn(1, 6, 2, 8, seed=2)
    scores = [torch.einsum("bihd,bjhd->bhij", rope.turn(q, t), rope.turn(k, t)) for t in (0, shift)]
    close(*scores)
    wrong = torch.einsum("bihd,bjhd->bhij", rope.turn(q, 1), rope.turn(k, 0))
    assert not torch.allclose(scores[0], wrong)


def test_rope_keeps_dtype_and_computes_in_float32():
    h = drawn(1, 300, 1, 8)
    half = made("rope").turn(h.bfloat16(), 0)
    assert half.dtype == torch.bfloat16
    close(half.double(), made("rope").turn(h.bfloat16().double(), 0), 5e-3)


def test_alibi_slopes_of_the_paper():
    assert alibi_slopes(8) == tuple(2.0**-k for k in range(1, 9))
    assert alibi_slopes(12) == (
        *(2.0**-k for k in range(1, 9)),
        *(2.0 ** -(k - 0.5) for k in range(1, 5)),
    )
    assert alibi_slopes(1) == (2.0**-8,)
    assert alibi_slopes(3) == (2.0**-4, 2.0**-8, 2.0**-2)


@pytest.mark.parametrize("heads", [1, 2, 3, 6, 12])
def test_alibi_falls_with_distance(heads):
    bias = made("alibi", heads=heads).bias(drawn(1, 3, heads, 8), 7, 4, True)
    assert bias.shape == (1, heads, 3, 7)
    for h, slope in enumerate(alibi_slopes(heads)):
        for i in range(3):
            for j in range(7):
                assert bias[0, h, i, j].item() == pytest.approx(-slope * abs(i + 4 - j))


def t5_bucket(ahead, buckets, max_distance, is_causal):
    """T5's rule, with its logarithm; None where the logarithm stands on a border."""
    side, base = buckets, 0
    if not is_causal:
        side, base = buckets // 2, buckets // 2 if ahead > 0 else 0
        distance = abs(ahead)
    else:
        distance = max(-ahead, 0)
    exact = side // 2
    if distance < exact:
        return base + distance
    place = math.log(distance / exact) / math.log(max_distance / exact) * (side - exact)
    if abs(place - round(place)) < 1e-9:
        place = round(place)
    return base + min(exact + int(place), side - 1)


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize(("buckets", "far"), [(32, 128), (8, 20), (4, 5), (64, 1000)])
def test_relative_buckets_are_those_of_t5(buckets, far, is_causal):
    part = made(f"relative(buckets={buckets},max_distance={far})")
    ahead = torch.arange(-2 * far, 2 * far)
    wanted = [t5_bucket(int(a), buckets, far, is_causal) for a in ahead]
    assert part.bucket(ahead, is_causal).tolist() == wanted
    assert set(wanted) == set(range(buckets)) - (set() if is_causal else {buckets // 2})


@pytest.mark.parametrize("weight", ["softmax", "sigmoid(bias=0)", "tanh"])
def test_relative_bias_learns(weight):
    """Its gradient is that of an explicit bias, gathered over the pairs of each bucket."""
    sites = f"weight={weight}"
    layer = shaken(
        Attention(WIDTH, HEADS, positions="relative(buckets=8,max_distance=20)", sites=sites)
    )
    plain = shaken(Attention(WIDTH, HEADS, sites=sites))
    plain.load_state_dict({n: t for n, t in layer.state_dict().items() if "positions" not in n})
    x, out_grad = drawn(2, 30, WIDTH), drawn(2, 30, WIDTH, seed=3)
    pairs = torch.arange(30) - torch.arange(30)[:, None]
    bucket = layer.positions.bucket(pairs, False)
    bias = layer.positions.weight.detach()[bucket].permute(2, 0, 1).clone().requires_grad_()
    out, wanted = layer(x), plain(x, attn_bias=bias)
    close(out, wanted)
    (out * out_grad).sum().backward()
    (wanted * out_grad).sum().backward()
    gathered = torch.zeros(8, HEADS, dtype=torch.float64)
    gathered.index_add_(0, bucket.flatten(), bias.grad.flatten(1).T)
    close(layer.positions.weight.grad, gathered)
    assert (gathered.abs().sum(1) > 0).sum() == 7  # no key ahead is at distance zero


@pytest.mark.parametrize("written", ["alibi", "relative"])
@pytest.mark.parametrize("is_causal", [True, False])
def test_bias_adds_to_the_callers_bias(written, is_causal):
    layer = shaken(Attention(WIDTH, HEADS, positions=written))
    plain = shaken(Attention(WIDTH, HEADS))
    plain.load_state_dict({n: t for n, t in layer.state_dict().items() if "positions" not in n})
    x, extra = drawn(2, 6, WIDTH), drawn(1, 1, 6, 6, seed=4)
    own = layer.positions.bias(torch.empty(2, 6, HEADS, 6, dtype=torch.float64), 6, 0, is_causal)
    wanted = plain(x, attn_bias=own + extra, is_causal=is_causal)
    close(layer(x, attn_bias=extra, is_causal=is_causal), wanted)
    assert not torch.allclose(plain(x, attn_bias=extra, is_causal=is_causal), wanted)


@pytest.mark.parametrize("width", [6, 7])
def test_sinusoids_of_the_paper(width):
    part = build_position("sinusoidal").setup(Sizes(width, 1, width))
    came = part.vectors(drawn(1, 5, width), 2)
    for t in range(5):
        for f in range(width):
            angle = (t + 2) / 10000 ** (f // 2 * 2 / width)
            assert came[t, f].item() == pytest.approx((math.cos if f % 2 else math.sin)(angle))


def test_learned_positions_are_rows_of_a_table():
    part = made("learned", max_length=9)
    assert torch.equal(part.vectors(drawn(1, 4, 16), 3), part.weight[3:7])


@pytest.mark.parametrize("written", ["rope", "alibi", "relative"])
def test_positions_matter(written):
    layer = shaken(Attention(WIDTH, HEADS, positions=written))
    x = drawn(1, 6, WIDTH)
    plain = shaken(Attention(WIDTH, HEADS))
    close(plain(x.roll(1, 1)).roll(-1, 1), plain(x))
    assert not torch.allclose(layer(x.roll(1, 1)).roll(-1, 1), layer(x))


def test_written_form_round_trips():
    for text in ("rope", "rope(base=500000)", "relative(buckets=8,max_distance=20)", "alibi"):
        assert str(build_position(text)) == text
    assert build_position(build_position("rope(base=7)")).base == 7


@pytest.mark.parametrize(
    ("written", "error", "says"),
    [
        ("roped", UnknownName, "did you mean 'rope'"),
        ("rope(base=0)", ArgumentError, "above 0"),
        ("rope(bass=10)", ArgumentError, "bass"),
        ("relative(buckets=6)", ArgumentError, "multiple of 4"),
        ("relative(buckets=32,max_distance=32)", ArgumentError, "at least 33"),
        ("relative(buckets=2)", ArgumentError, "at least 4"),
        ("learned", ArgumentError, "embeddings"),
        ("sinusoidal", ArgumentError, "embeddings"),
    ],
)
def test_what_does_not_fit_a_layer(written, error, says):
    with pytest.raises(error, match=says):
        Attention(WIDTH, HEADS, positions=written)


def test_rope_needs_pairs():
    with pytest.raises(ArgumentError, match="odd width per head, 3"):
        Attention(12, 4, positions="rope")
    with pytest.raises(ArgumentError, match="odd width per head, 3"):
        Attention(
            24, 4, positions="rope", sites="query=glu(silu,width=split) key=glu(silu,width=split)"
        )
    Attention(12, 4, positions="alibi")

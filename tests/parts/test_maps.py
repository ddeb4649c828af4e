"""Every map against torch or its formula; gradients, parameters, causality, controls."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import scipy.integrate
import torch
from torch import Tensor
from torch.nn import functional as F

from ogive.errors import ArgumentError
from ogive.parts import Projection, Sizes, build, catalogue
from ogive.parts.maps import Activation
from parts.samples import SIZES, forms, normal, randomised, separated

FORMS = forms("map")
LENGTH = 5

ELEMENTWISE = {
    "relu": F.relu,
    "leaky_relu": lambda h: torch.where(h > 0, h, 0.2 * h),
    "leaky_relu(0.9)": lambda h: torch.where(h > 0, h, 0.9 * h),
    "relu2": lambda h: F.relu(h) ** 2,
    "gelu": lambda h: h * torch.distributions.Normal(0.0, 1.0).cdf(h),
    "silu": lambda h: h / (1 + torch.exp(-h)),
    "tanh": lambda h: (torch.exp(2 * h) - 1) / (torch.exp(2 * h) + 1),
    "sigmoid": lambda h: 1 / (1 + torch.exp(-h)),
    "softplus": lambda h: torch.log1p(torch.exp(h)),
    "elu": lambda h: torch.where(h > 0, h, torch.exp(h) - 1),
    "elu1": lambda h: torch.where(h > 0, h + 1, torch.exp(h)),
    "exp": torch.exp,
    "power(2)": lambda h: h * h.abs(),
    "power(3)": lambda h: h**3,
    "power(1.5)": lambda h: h * h.abs().sqrt(),
    "power(1)": lambda h: h,
    "hardtanh": lambda h: h.clamp(-1, 1),
    "mish": lambda h: h * torch.tanh(torch.log1p(torch.exp(h))),
    "scale(0.5)": lambda h: h / 2,
    "scale(learned)": lambda h: h,
}
ROWWISE = {
    "rmsnorm": lambda h: h / (h.square().mean(-1, keepdim=True) + 1e-6).sqrt(),
    "layernorm": lambda h: (
        (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
    ),
    "l2norm": lambda h: h / h.square().sum(-1, keepdim=True).sqrt(),
    "glu(silu)": lambda h: h[..., :3] * F.silu(h[..., 3:]),
    "glu(relu)": lambda h: h[..., :3] * F.relu(h[..., 3:]),
}


def inputs() -> tuple[Tensor, Tensor]:
    return normal(2, LENGTH, 2, 6), normal(2, LENGTH, 12, seed=1)


def run(form: str, seed: int = 0) -> tuple[torch.nn.Module, Tensor, Tensor, Tensor]:
    """The map with what it learns drawn at random, h, x, and what comes out."""
    h, x = inputs()
    part = randomised(build("map", form).setup(SIZES).double(), seed)
    return part, h, x, part(x) if isinstance(part, Projection) else part(h, x)


def close(came: Tensor, fits: Tensor) -> None:
    torch.testing.assert_close(came, fits, rtol=1e-12, atol=1e-13)


def test_every_activation_and_norm_has_a_formula_here():
    simple = {n for n, c in catalogue("map").items() if c.kind in ("activation", "norm")}
    assert simple <= {form.partition("(")[0] for form in (*ELEMENTWISE, *ROWWISE)}


@pytest.mark.parametrize("form", ELEMENTWISE)
def test_elementwise_maps_equal_their_formula(form):
    h = torch.cat([normal(2, 40, 2, 6) * 3, torch.zeros(2, 1, 2, 6, dtype=torch.float64)], 1)
    close(build("map", form).setup(SIZES)(h, None), ELEMENTWISE[form](h))


@pytest.mark.parametrize("form", ROWWISE)
def test_rowwise_maps_equal_their_formula(form):
    h, _ = inputs()
    close(build("map", form).setup(SIZES)(h, None), ROWWISE[form](h))


@pytest.mark.parametrize("form", ["rmsnorm", "layernorm", "l2norm"])
def test_gain_multiplies_features_and_starts_at_one(form):
    h, _ = inputs()
    plain = build("map", form)(h, None)
    assert torch.equal(build("map", f"{form}(gain=true)").setup(SIZES).double()(h, None), plain)
    part, h, _, came = run(f"{form}(gain=true)")
    close(came, plain * part.weight)
    assert part.weight.shape == (6,)


@pytest.mark.parametrize("form", ["rmsnorm", "layernorm", "l2norm"])
def test_norms_keep_heads_apart_and_survive_zero(form):
    h, _ = inputs()
    h[:, :, 0] = 0
    h.requires_grad_()
    came = build("map", form)(h, None)
    assert not came[:, :, 0].any()
    assert torch.autograd.grad(came.sum(), h)[0].isfinite().all()


def test_gates():
    part, h, x, came = run("gate(sigmoid)")
    assert part.weight.shape == (12, 12)
    close(came, h * torch.sigmoid((x @ part.weight.T).reshape(2, LENGTH, 2, 6)))
    part, h, x, came = run("gate(tanh,granularity=head)")
    assert part.weight.shape == (2, 12)
    close(came, h * torch.tanh(x @ part.weight.T)[..., None])


def test_controls():
    part, h, x, came = run("additive")
    close(came, h + (x @ part.weight.T).reshape(2, LENGTH, 2, 6))
    part, h, _, came = run("constant_gate(tanh)")
    assert part.weight.shape == (2, 6)
    close(came, h * part.weight.tanh())
    part, h, _, came = run("constant_gate(granularity=head)")
    assert part.weight.shape == (2, 1)
    close(came, h * part.weight.sigmoid())
    part, h, _, came = run("scale(learned)")
    close(came, h * part.weight)


def test_constant_gate_starts_as_half_of_the_plain_layer():
    h, x = inputs()
    close(build("map", "constant_gate").setup(SIZES).double()(h, x), h / 2)


def test_projections():
    part, _, x, came = run("linear")
    close(came, (x @ part.weight.T).reshape(2, LENGTH, 2, 6))
    _, _, x, came = run("identity")
    assert torch.equal(came, x.reshape(2, LENGTH, 2, 6))
    part, _, x, came = run("mlp(gelu)")
    close(came, (F.gelu(x @ part.inner.T) @ part.outer.T).reshape(2, LENGTH, 2, 6))
    part, _, x, came = run("residual_mlp(gelu)")
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt()
    inner = F.gelu(normed @ part.inner.T) @ part.outer.T
    shared = (inner - inner.mean(-1, keepdim=True)) / (
        inner.var(-1, correction=0, keepdim=True) + 1e-5
    ).sqrt()
    close(came, ((x + shared) / 2).reshape(2, LENGTH, 2, 6))


def test_linear_has_a_bias_where_the_layer_has_one():
    part = randomised(build("map", "linear").setup(Sizes(12, 2, 6, bias=True)).double())
    x = normal(2, LENGTH, 12)
    close(part(x), (x @ part.weight.T + part.bias).reshape(2, LENGTH, 2, 6))


@pytest.mark.parametrize("form", ["identity", "residual_mlp(gelu)"])
def test_projections_that_keep_the_width_say_so(form):
    with pytest.raises(ArgumentError, match="2 heads of 5 need 10"):
        build("map", form).setup(Sizes(12, 2, 5))


@pytest.mark.parametrize("width", [1, 2, 3, 7])
def test_conv_is_a_causal_sum_over_its_own_feature(width):
    part, h, _, came = run(f"conv({width})")
    assert part.history == width - 1
    fits = torch.zeros_like(h)
    for t in range(LENGTH):
        for back in range(min(width, t + 1)):
            fits[:, t] += part.weight[back] * h[:, t - back]
    close(came, fits)


def test_conv_sees_no_future_and_no_further_back_than_it_says():
    part, h, _, came = run("conv(3)")
    for t in range(LENGTH):
        moved = h.clone()
        moved[:, t] += 1
        reached = (part(moved, None) != came).flatten(2).any(-1).any(0)
        assert reached.tolist() == [t <= u <= t + part.history for u in range(LENGTH)]


def test_conv_starts_as_the_identity():
    h, x = inputs()
    assert torch.equal(build("map", "conv(3)").setup(SIZES).double()(h, x), h)


@pytest.mark.parametrize("form", [f for f in FORMS if not f.startswith("conv")])
def test_maps_look_at_no_other_position_or_sample(form):
    part, h, x, came = run(form)
    came = came.clone()
    h[0, 2], x[0, 2] = 2 * h[0, 2].sin() - 0.3, 2 * x[0, 2].cos() - 0.3
    moved = part(x) if isinstance(part, Projection) else part(h, x)
    same = torch.isclose(moved, came, rtol=1e-12, atol=1e-12).flatten(2).all(-1)
    assert same.tolist() == [[t != 2 for t in range(LENGTH)], [True] * LENGTH]


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form):
    part = randomised(build("map", form).setup(SIZES).double())
    h, x = separated(1, 3, 2, 6), separated(1, 3, 12, seed=1)
    came_in = [x] if isinstance(part, Projection) else [h, x]
    names = [name for name, _ in part.named_parameters()]
    given = [t.requires_grad_() for t in came_in] + list(part.parameters())

    def of(*tensors: Tensor) -> Tensor:
        learned = dict(zip(names, tensors[len(came_in) :], strict=True))
        return torch.func.functional_call(part, learned, tensors[: len(came_in)])

    assert torch.autograd.gradcheck(of, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(of, given, fast_mode=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(0, 4), (2, 0), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_empty_batches_and_dtypes(form, shape, dtype):
    part = build("map", form).setup(SIZES).to(dtype)
    h, x = normal(*shape, 2, 6).to(dtype), normal(*shape, 12).to(dtype)
    out = part(x) if isinstance(part, Projection) else part(h, x)
    assert out.shape[:3] == (*shape, 2)
    assert out.dtype == dtype
    if not isinstance(part, Projection):
        assert out.shape[-1] == part.width_out(6)


@pytest.mark.parametrize("width", [1, 2, 6, 63, 64])
@pytest.mark.parametrize("form", FORMS)
def test_width_out_is_what_comes_out_of_width_in(form, width):
    if "split" in form and width % 2:
        with pytest.raises(ArgumentError, match="odd"):
            build("map", form).width_in(width)
        return
    part = build("map", form)
    if isinstance(part, Projection):
        return
    wide = part.width_in(width)
    part.setup(Sizes(12, 2, wide))
    out = part(normal(1, 2, 2, wide, dtype=torch.float32), normal(1, 2, 12, dtype=torch.float32))
    assert out.shape[-1] == part.width_out(wide)
    assert "split" in form or "match" in form or out.shape[-1] == width


@pytest.mark.parametrize(
    ("form", "width", "heads", "head_width"),
    [
        ("mlp(gelu)", 64, 4, 16),
        ("mlp(gelu)", 96, 3, 32),
        ("mlp(gelu)", 64, 8, 24),
        ("residual_mlp(relu)", 64, 4, 16),
        ("residual_mlp(relu)", 96, 3, 32),
    ],
)
def test_matched_projections_cost_one_matrix(form, width, heads, head_width):
    part = build("map", form).setup(Sizes(width, heads, head_width))
    count = sum(p.numel() for p in part.parameters())
    assert abs(count - width * heads * head_width) <= (width + heads * head_width) / 2


@pytest.mark.parametrize("head_width", [12, 16, 24, 33, 64])
def test_matched_glu_keeps_the_parameters_of_value_and_output_projection(head_width):
    """Head width h: a plain layer spends w·h in and h·w out; glu spends w·wide and w·wide/2."""
    part = build("map", "glu(silu,width=match)")
    wide = part.width_in(head_width)
    assert wide % 2 == 0
    assert abs((wide + part.width_out(wide)) - 2 * head_width) <= 1.5
    assert wide == pytest.approx(4 / 3 * head_width, abs=1)


@pytest.mark.parametrize("name", ["relu", "gelu", "silu", "tanh", "softplus", "hardtanh", "elu1"])
def test_matched_scale_is_the_rms_that_the_activation_gives_a_normal_number(name):
    act: Activation = build("map", name)

    def density(z: float) -> float:
        value = act.value(torch.tensor(z, dtype=torch.float64)).item()
        return value**2 * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    kinks = (-14, -1, 0, 1, 14)
    pieces = [scipy.integrate.quad(density, a, b, epsabs=1e-12)[0] for a, b in pairwise(kinks)]
    assert build("map", f"scale({name})").factor == pytest.approx(math.sqrt(sum(pieces)), rel=1e-6)
    if name == "relu":
        assert build("map", "scale(relu)").factor == pytest.approx(math.sqrt(0.5), rel=1e-9)


def test_matched_scale_matches_a_sample():
    z = torch.from_numpy(np.random.default_rng(0).standard_normal(1_000_000))
    for name in ("relu", "gelu", "hardtanh", "leaky_relu"):
        rms = build("map", name).value(z).square().mean().sqrt().item()
        assert build("map", f"scale({name})").factor == pytest.approx(rms, rel=5e-3)


@pytest.mark.parametrize("form", FORMS)
def test_reset_parameters_starts_again_from_the_same_distribution(form):
    part = build("map", form)
    torch.manual_seed(3)
    part.setup(SIZES)
    start = [p.detach().clone() for p in part.parameters()]
    randomised(part)
    torch.manual_seed(3)
    if start:
        part.reset_parameters()
    assert all(torch.equal(a, b) for a, b in zip(start, part.parameters(), strict=True))

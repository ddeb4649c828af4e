"""Every score against loops in fifty digits, its gradients, its scale, and what it can rank."""

from __future__ import annotations

import math

import pytest
import torch
from mpmath import mpf
from torch import Tensor

from ogive.errors import ArgumentError
from ogive.parts import Score, ScoreMap, Sizes, build, catalogue, parse_chain, score_from
from parts import oracle
from parts.samples import CHAINS, SIZES, forms, normal, ready_score, separated

FORMS = [*forms("score"), *CHAINS]
PAIR_FORMS = [form for form in FORMS if not form.startswith("softcap")]


def test_every_score_has_an_oracle():
    assert {form.partition("(")[0] for form in oracle.SCORES} >= set(catalogue("score"))


@pytest.mark.parametrize("form", oracle.SCORES)
def test_numbers_equal_loops(form):
    score, query, key = ready_score(form), normal(1, 2, 3, 6), normal(1, 2, 4, 6, seed=1)
    came = score(query, key)
    assert came.shape == (1, 2, 3, 4)
    for head in range(2):
        learned = {
            name.rpartition(".")[2]: _exact(parameter[head])
            for name, parameter in score.named_parameters()
        }
        for i in range(3):
            for j in range(4):
                pair = _exact(query[0, head, i]), _exact(key[0, head, j])
                fits = float(oracle.SCORES[form](*pair, learned))
                assert came[0, head, i, j].item() == pytest.approx(fits, rel=1e-11, abs=1e-14)


def _exact(tensor: Tensor) -> list:
    """Nested lists of the tensor's numbers as exact mpmath numbers."""
    if tensor.dim() == 1:
        return [mpf(number) for number in tensor.tolist()]
    return [_exact(row) for row in tensor]


@pytest.mark.parametrize("form", FORMS)
def test_gradients(form):
    score = ready_score(form)
    both = separated(1, 2, 6, 6)
    query, key = both[:, :, :2], both[:, :, 2:5]
    inputs = [query.clone().requires_grad_(), key.clone().requires_grad_(), *score.parameters()]
    names = [name for name, _ in score.named_parameters()]

    def of(q: Tensor, k: Tensor, *learned: Tensor) -> Tensor:
        return torch.func.functional_call(score, dict(zip(names, learned, strict=True)), (q, k))

    assert torch.autograd.gradcheck(of, inputs)
    assert torch.autograd.gradgradcheck(of, inputs)


@pytest.mark.parametrize("form", PAIR_FORMS)
def test_scale_multiplies_before_any_map_of_scores(form):
    first, *then = [str(form) for form in parse_chain(form)]
    query, key = normal(1, 2, 3, 6), normal(1, 2, 4, 6, seed=1)
    plain = ready_score(first)
    fits = plain.pairs(query, key) * 0.37
    for step in then:
        fits = build("score", step).value(fits)
    came = ready_score(form)(query, key, 0.37)
    torch.testing.assert_close(came, fits, rtol=1e-14, atol=1e-15)
    assert not torch.allclose(came, ready_score(form)(query, key))


@pytest.mark.parametrize("width", [1, 6, 64])
def test_default_scales(width):
    root = math.sqrt(width)
    fits = {"dot": 1 / root, "bilinear": 1 / root, "distance": 1 / root, "cosine": 1.0, "gat": 1.0}
    fits |= {"distance(power=1)": root**-0.5, "distance(sigma=3)": 1 / 9}
    fits |= {"distance(sigma=3,power=1)": 1 / 3}
    for form, scale in fits.items():
        assert score_from(form).resolve_scale(width, None) == pytest.approx(scale)
    assert score_from("dot,softcap(2)").resolve_scale(width, 0.5) == 0.5


def test_distance_softmax_differs_from_dot_by_the_keys_lengths_alone():
    """−‖q−k‖²/2σ² = q·k/σ² − ‖k‖²/2σ² − ‖q‖²/2σ², and a softmax row cancels the last term."""
    query, key = normal(1, 2, 3, 16), normal(1, 2, 4, 16, seed=1)
    plain = ready_score("dot")(query, key) - (key.square().sum(-1) / (2 * 4)).unsqueeze(-2)
    came = build("score", "distance")(query, key)
    torch.testing.assert_close(came.softmax(-1), plain.softmax(-1), rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("power", [1, 2])
def test_equal_vectors_are_at_distance_zero_with_finite_gradients(power):
    query = normal(1, 2, 3, 6).requires_grad_()
    score = build("score", f"distance(power={power})")
    scores = score(query, query.detach())
    apart = scores.diagonal(dim1=-2, dim2=-1).abs().max()
    assert apart < 1e-6  # a distance is the root of a difference of squares, so of rounding
    assert (scores <= 0).all()
    assert torch.autograd.grad(scores.sum(), query)[0].isfinite().all()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (0, 0), (1, 1)])
def test_empty_and_single_rows(form, shape):
    queries, keys = shape
    query, key = normal(1, 2, queries, 6).requires_grad_(), normal(1, 2, keys, 6)
    scores = ready_score(form)(query, key)
    assert scores.shape == (1, 2, queries, keys)
    assert torch.autograd.grad(scores.sum(), query)[0].isfinite().all()


def test_softcap_caps_any_score():
    query, key = normal(1, 2, 8, 6) * 30, normal(1, 2, 8, 6, seed=1) * 30
    for form in PAIR_FORMS:
        if len(parse_chain(form)) > 1:
            continue
        capped = ready_score(f"{form},softcap(0.25)")(query, key)
        raw = ready_score(form)(query, key)
        assert capped.abs().max() <= 0.25
        torch.testing.assert_close(capped, 0.25 * torch.tanh(raw / 0.25), rtol=1e-12, atol=1e-14)


def test_two_caps_compose_in_order():
    query, key = normal(1, 2, 3, 6), normal(1, 2, 4, 6, seed=1)
    raw = ready_score("dot")(query, key)
    came = score_from("softcap(2),softcap(0.5)")(query, key)
    assert torch.equal(came, 0.5 * torch.tanh(2 * torch.tanh(raw / 2) / 0.5))


class Tilted(ScoreMap, listed=False):
    """Scores times a learned factor, as a user's map of scores may have one."""

    name = "tilted"
    needs_setup = True

    def setup(self, sizes):
        self.factor = torch.nn.Parameter(torch.full((), 3.0, dtype=torch.float64))
        return self

    def value(self, scores):
        return scores * self.factor


def test_maps_of_scores_may_learn():
    score = score_from(Tilted())
    assert score.needs_setup
    score.setup(SIZES)
    query, key = normal(1, 2, 3, 6), normal(1, 2, 4, 6, seed=1)
    torch.testing.assert_close(score(query, key), 3 * ready_score("dot")(query, key))


@pytest.mark.parametrize(
    "text", ["", " ", "softcap(3),dot", "dot,dot", "dot,gelu", "dot,softcap(2),cosine"]
)
def test_chains_that_do_not_fit_say_so(text):
    with pytest.raises(ArgumentError):
        score_from(text)


LEARNING = ["bilinear", "additive(tanh)", "gat", "gatv2", "cosine(learned=true)"]


@pytest.mark.parametrize("form", LEARNING)
def test_scores_that_learn_say_which_sizes_fit(form):
    with pytest.raises(ArgumentError, match="setup"):
        score_from(form).matches_heads(2, 6)
    with pytest.raises(ArgumentError, match=r"set up for"):
        ready_score(form).matches_heads(3, 6)
    assert ready_score(form).matches_heads(2, 6) is None
    assert score_from(form).needs_setup
    assert score_from(f"{form},softcap(3)").needs_setup


def rankings(score: Score) -> Tensor:
    """The order in which each of 200 queries ranks 12 keys, by head: (heads, queries, keys)."""
    return score(normal(1, 2, 200, 6) * 3, normal(1, 2, 12, 6, seed=1) * 3)[0].argsort(-1)


@pytest.mark.parametrize("form", ["gat", "gat(tanh)", "gat(power(3))", "gat,softcap(2)"])
@pytest.mark.parametrize("seed", range(4))
def test_gat_is_static(form, seed):
    """A monotone function of a sum ranks the keys alike for every query, whatever was learned."""
    orders = rankings(ready_score(form, seed=seed))
    if "tanh" in form or "softcap" in form:  # ties where tanh saturates at one
        score = ready_score(form, seed=seed)
        scores = score(normal(1, 2, 200, 6) * 3, normal(1, 2, 12, 6, seed=1) * 3)[0]
        by_key = ready_score("gat(power(1))", seed=seed)
        order = by_key(normal(1, 2, 1, 6), normal(1, 2, 12, 6, seed=1) * 3)[0].argsort(-1)
        assert (scores.gather(-1, order.expand_as(scores)).diff(dim=-1) >= 0).all()
    else:
        assert (orders == orders[:, :1]).all()


@pytest.mark.parametrize("form", ["gatv2", "additive(tanh)", "additive(relu)", "dot", "distance"])
@pytest.mark.parametrize("seed", range(4))
def test_the_others_are_dynamic(form, seed):
    """Different queries rank the keys differently, in every head."""
    orders = rankings(ready_score(form, seed=seed))
    assert (orders != orders[:, :1]).flatten(1).any(-1).all()


def test_additive_without_a_nonlinearity_is_static_too():
    """The certificate bites: the activation on the sum is what makes the ranking depend on q."""
    orders = rankings(ready_score("additive(power(1))"))
    assert (orders == orders[:, :1]).all()


def test_gatv2_can_look_a_key_up_where_gat_cannot():
    """Weights by hand: query i asks for key i of four. No setting of gat's could do it."""
    sizes = Sizes(width=4, heads=1, head_width=4)
    query, key = 10 * torch.eye(4)[None, None], -10 * torch.eye(4)[None, None]
    score = build("score", "gatv2").setup(sizes)
    with torch.no_grad():
        score.weight.fill_(-1)  # q_i + k_j vanishes at j = i alone, and costs 10 − 2 elsewhere
        assert torch.equal(score(query, key)[0, 0].argmax(-1), torch.arange(4))

"""impls, last_impl and options: a name is obeyed or refused, and no option is ignored."""

from __future__ import annotations

import pytest
import torch

import ogive
from kernels import cases
from kernels.cases import SCORES, WEIGHTS, Case, build_call
from ogive.errors import ImplUnavailable
from ogive.kernels import AuxRequest, attention, compiled, impls, last_impl, native, quick
from ogive.parts import build, score_from


def tensors(**changed):
    return build_call(Case(1, heads=4, queries=6, keys=6, **changed)).inputs


def test_impls_say_what_runs_and_why_not_the_rest():
    found = impls()
    assert set(found) == {"reference", "sdpa", "native", "linear", "chunked", "flex"}
    weights = {"linear": "linear(normalise=false)"}
    for name, impl in found.items():
        assert impl.name == name
        assert impl.summary
        if impl.missing is None:
            weight = weights.get(name, "softmax")
            assert attention(**tensors(), weight=weight, impl=name).shape == (1, 4, 6, 4)
            assert last_impl() == name
        else:
            with pytest.raises(ImplUnavailable) as caught:
                attention(**tensors(), impl=name)
            assert impl.missing in str(caught.value)
    assert ogive.impls is impls
    assert ogive.last_impl is last_impl


def test_the_list_is_a_copy():
    impls().clear()
    assert impls()


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
def test_sdpa_runs_or_raises(score, weight):
    call = build_call(Case(1, score, weight))
    options = {"score": call.score, "weight": call.weight}
    attention(**call.inputs, **options, impl="reference")
    assert last_impl() == "reference"
    if (score, weight) == ("dot", "softmax"):
        attention(**call.inputs, **options, impl="sdpa")
        assert last_impl() == "sdpa"
        return
    with pytest.raises(ImplUnavailable, match="sdpa"):
        attention(**call.inputs, **options, impl="sdpa")
    assert last_impl() == "reference"


WIDE = compiled.instruction_set in ("avx2", "avx512")
"""Whether "auto" takes the kernels here."""


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("score", SCORES)
def test_auto_takes_the_kernels_where_they_run(score, weight):
    """Of calls without gradients, all that they run; the rest by the definition."""
    call = build_call(Case(1, score, weight, queries=40, keys=40))
    with torch.no_grad():
        found = attention(**call.inputs, score=call.score, weight=call.weight)
    runs = WIDE and "native" in cases.impls_of(call.case)
    torchs = "sdpa" if (score, weight) == ("dot", "softmax") else "reference"
    assert last_impl() in (("native", "linear") if runs else (torchs,))
    given = {"score": call.score, "weight": call.weight, "impl": last_impl()}
    with torch.no_grad():
        assert torch.equal(found, attention(**call.inputs, **given))


@pytest.mark.skipif(not WIDE, reason="auto leaves kernels without wide vectors alone")
def test_auto_chooses_by_kind_and_size_and_not_by_what_ran_before(monkeypatch):
    """The rule of docs/design/0002, with and without gradients, learned or not."""
    mask = {"attn_mask": torch.ones(6, 6, dtype=torch.bool).tril()}
    few, large = {"queries": 2, "keys": 96}, {"queries": 96, "keys": 96, "width": 64}
    expected = [  # sizes, options, gradients, softmax, tanh
        ({}, {}, True, "native", "native"),
        ({}, mask, True, "sdpa", "native"),
        ({}, mask, False, "native", "native"),
        (few, {}, True, "native", "native"),
        (few, {}, False, "native", "native"),
        (large, {"attn_mask": torch.ones(96, 96, dtype=torch.bool).tril()}, True, *["native"] * 2),
        ({}, {"dropout_p": 0.5}, True, "native", "native"),
        ({}, {"return_aux": AuxRequest(lse=True)}, False, "native", "reference"),
        ({}, {"return_aux": AuxRequest(entropy=True)}, False, "reference", "reference"),
    ]
    for sizes, options, gradients, *names in expected:
        for weight, name in zip(("softmax", "tanh"), names, strict=True):
            quick._plans.clear()
            call = build_call(Case(1, heads=4, **({"queries": 6, "keys": 6} | sizes)))
            inputs = {n: t.requires_grad_(gradients) for n, t in call.inputs.items()}
            for _ in range(3):
                attention(**inputs, weight=weight, **options)
                assert last_impl() == name, (sizes, options, gradients, weight)
            attention(**inputs, weight=weight, **options, impl="reference")
    monkeypatch.setattr(native, "_MULTIPLIES_TILES", True)
    halves = {n: t.detach().bfloat16() for n, t in tensors().items()}
    for weight, name in (("softmax", "sdpa"), ("tanh", "native")):
        attention(**halves, weight=weight)
        assert last_impl() == name
    monkeypatch.setattr(compiled, "instruction_set", "baseline")
    for weight, name in (("softmax", "sdpa"), ("tanh", "reference")):
        attention(**tensors(), weight=weight)
        assert last_impl() == name


def test_last_impl_is_what_really_ran(monkeypatch):
    """Counted, not believed: torch's own function is called once for sdpa and never otherwise."""
    calls = []
    real = torch.nn.functional.scaled_dot_product_attention

    def counting(*args, **kwargs):
        calls.append(1)
        return real(*args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", counting)
    for impl, weight, expected in (
        ("auto", "softmax", 0 if WIDE else 1),
        ("sdpa", "softmax", 1),
        ("reference", "softmax", 0),
        ("auto", "tanh", 0),
    ):
        calls.clear()
        attention(**tensors(), weight=weight, impl=impl)
        assert len(calls) == expected
        assert (last_impl() == "sdpa") == bool(expected)


CHANGES = {
    "score": {"score": "cosine"},
    "weight": {"weight": "tanh"},
    "attn_mask": {"attn_mask": torch.ones(6, 6, dtype=torch.bool).tril(1)},
    "float attn_mask": {"attn_mask": torch.arange(36.0).view(6, 6) / 9},
    "hiding attn_mask": {"attn_mask": torch.full((6, 6), -torch.inf).triu(1)},
    "attn_bias": {"attn_bias": torch.arange(6.0)},
    "hiding attn_bias": {"attn_bias": torch.full((6, 6), -torch.inf).triu(1)},
    "is_causal": {"is_causal": True},
    "window_size": {"window_size": (1, 1)},
    "left window": {"window_size": (1, None)},
    "right window": {"window_size": (-1, 1)},
    "scale": {"scale": 0.9},
    "dropout_p": {"dropout_p": 0.5},
}
WITHIN = {
    "q_offset": ({"is_causal": True}, {"is_causal": True, "q_offset": 2}),
    "negative q_offset": ({"is_causal": True}, {"is_causal": True, "q_offset": -2}),
    "tensor q_offset": ({"is_causal": True}, {"is_causal": True, "q_offset": torch.tensor([1])}),
    "window offset": ({"window_size": (1, 1)}, {"window_size": (1, 1), "q_offset": 1}),
    "causal window": ({"window_size": (2, 2)}, {"window_size": (2, 2), "is_causal": True}),
    "mask and causal": (
        {"is_causal": True},
        {
            "is_causal": True,
            "attn_mask": torch.ones(6, dtype=torch.bool).index_fill(0, torch.tensor([0]), False),
        },
    ),
    "mask and bias": (
        {"attn_bias": torch.arange(6.0)},
        {"attn_bias": torch.arange(6.0), "attn_mask": torch.ones(6, 6, dtype=torch.bool).tril()},
    ),
    "both floats": (
        {"attn_bias": torch.arange(6.0)},
        {"attn_bias": torch.arange(6.0), "attn_mask": torch.arange(36.0).view(6, 6) / 9},
    ),
}
EACH = {n: ({}, c) for n, c in CHANGES.items()} | WITHIN


def outcome(inputs, options):
    try:
        return attention(**inputs, **options)
    except ogive.OgiveError as error:
        return error


@pytest.mark.parametrize("impl", ["reference", "sdpa", "auto"])
@pytest.mark.parametrize("name", EACH)
def test_every_option_changes_the_result_or_is_refused(name, impl):
    before, after = EACH[name]
    inputs = tensors()
    plain, changed = (
        outcome(inputs, before | {"impl": impl}),
        outcome(inputs, after | {"impl": impl}),
    )
    if isinstance(changed, ogive.OgiveError):
        assert impl == "sdpa"
        assert type(changed) is ImplUnavailable
    else:
        assert not torch.allclose(plain, changed), f"{name} was ignored"


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("name", [n for n in EACH if n not in ("weight", "score")])
def test_no_weight_function_ignores_an_option(name, weight):
    before, after = EACH[name]
    if (name, weight) == ("scale", "linear(normalise=true)"):
        return  # a factor on every score cancels in s / Σs
    call = build_call(Case(1, "dot", weight, heads=4, queries=6, keys=6))
    plain = attention(**call.inputs, weight=call.weight, **before)
    assert not torch.allclose(plain, attention(**call.inputs, weight=call.weight, **after)), name


@pytest.mark.parametrize("weight", ["softmax", "tanh"])
def test_grouped_heads_need_to_be_asked_for(weight):
    inputs = tensors(group=2)
    with pytest.raises(ogive.OgiveError, match="enable_gqa"):
        attention(**inputs, weight=weight)
    assert attention(**inputs, weight=weight, enable_gqa=True).shape == (1, 4, 6, 4)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_statistics_are_those_of_the_oracle(weight):
    call = build_call(
        Case(2, "dot", weight, "square", "both", queries=7, keys=7, dtype=torch.float64)
    )
    request = AuxRequest(
        lse=True, row_sum=True, max_score=True, entropy=True, weights=True, weights_rows=[0, 3]
    )
    out, aux = attention(**call.inputs, weight=call.weight, return_aux=request, **call.options)
    answer = cases.oracle.attend(
        *call.inputs.values(),
        keep=call.keep,
        bias=call.bias,
        **cases.formulas(call),
        weight_params=cases._family(call.parameters, "weight."),
        dense=True,
    )
    visible = answer.scores.masked_fill(~call.keep, -torch.inf)
    sizes = answer.weights.abs()
    share = sizes / sizes.sum(-1, keepdim=True).masked_fill(sizes.sum(-1, keepdim=True) == 0, 1)
    entropy = -(share * share.masked_fill(share == 0, 1).log()).sum(-1)
    for mine, right in (
        (out, answer.out),
        (aux.weights, answer.weights),
        (aux.weights_rows, answer.weights[:, :, [0, 3]]),
        (aux.row_sum, answer.weights.sum(-1)),
        (aux.lse, visible.logsumexp(-1)),
        (aux.max_score, visible.amax(-1)),
        (aux.entropy, entropy),
    ):
        torch.testing.assert_close(mine, right, rtol=1e-10, atol=1e-12)


def test_a_map_of_scores_alone_follows_dot():
    cap = score_from("softcap(2)").then[0]
    inputs = tensors()
    expected = attention(**inputs, score="dot,softcap(2)")
    for written in (cap, "softcap(2)", score_from("softcap(2)")):
        assert torch.equal(attention(**inputs, score=written), expected)


def test_a_part_defined_now_is_found_by_name():
    from ogive.parts import ElementwiseWeight, catalogue

    class Halves(ElementwiseWeight):
        name = "halves_of_this_test"

        def value(self, scores, n):
            return scores / 2 / n

    try:
        assert "halves_of_this_test" in catalogue("weight")
        inputs = tensors()
        found = attention(**inputs, weight="halves_of_this_test")
        torch.testing.assert_close(found, attention(**inputs, weight="identity") / 2)
    finally:
        Halves.listed = False
    assert build("weight", "tanh").name == "tanh"

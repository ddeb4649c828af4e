"""Linear attention taken as Q (Kᵀ V): the rule, bits, NaN, derivatives, and what it refuses.

The torture table walks it too, through `cases.ways_of`; here is what is its own.
"""

from __future__ import annotations

import random
import resource
from dataclasses import replace

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from kernels import cases
from kernels.cases import Case, build_call, ours, random_case, theirs
from kernels.rule import same_specials
from ogive.errors import ImplUnavailable
from ogive.kernels import attention, compiled, last_impl, reassociated
from ogive.layers import Attention

pytestmark = pytest.mark.skipif(
    compiled.missing is not None, reason=f"no kernels were compiled here: {compiled.missing}"
)
SETS = [] if compiled.missing else compiled.supported()
DTYPES = (torch.float32, torch.float32, torch.float64, torch.bfloat16)
WEIGHTS = ("linear(normalise=true)", "linear(normalise=false)", "identity(length_power=1)")
EDGES = (47, 48, 49, 95, 96, 97, 143, 193, 300)
"""Around the rows that are packed at a time, and the pieces between two sums in double."""


def drawn(seed: int, **fixed) -> Case:
    """A random case that this way can take."""
    pick = random.Random(f"linear {seed}")
    case = random_case(
        seed,
        score=pick.choice(("dot", "dot", "bilinear")),
        weight=pick.choice(WEIGHTS),
        mask=pick.choice(("none", "bool")),
        broadcast=pick.choice(("b11j", "j")),
        **({"dtype": pick.choice(DTYPES)} | fixed),
    )
    window = pick.choice((None, None, (None, 0), (None, 3)))
    aligned = case.causal != "none" or case.queries == case.keys
    return replace(case, window=window if aligned else None)


def longer(case: Case) -> Case:
    pick = random.Random(case.seed)
    queries = pick.choice(EDGES)
    square = case.causal == "square" or (case.window and case.causal == "none")
    keys = queries if square else pick.choice(EDGES)
    return replace(case, queries=queries, keys=keys, batch=1, heads=case.group)


def broken(case: Case, run=attention) -> list[str]:
    call = build_call(case)
    return cases.broken(call, {"linear": ours(call, "linear", run)})


# --- the rule ---------------------------------------------------------------------------------


@pytest.mark.parametrize("instructions", SETS)
def test_each_instruction_set_keeps_the_rule(instructions, monkeypatch, count):
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    grid = [drawn(seed) for seed in range(700_000, 700_100)]
    lines = [f"{case}: {line}" for case in grid for line in broken(case)]
    assert not lines, "\n".join(lines)
    count("T1", len(grid))


@pytest.mark.parametrize("instructions", SETS)
def test_lengths_beyond_a_chunk(instructions, monkeypatch, count):
    """Without row sums: their natural error needs a Jacobian for each row."""
    monkeypatch.setattr(compiled, "instruction_set", instructions)
    grid = [longer(drawn(seed)) for seed in range(710_000, 710_050)]
    grid = [case for case in grid if case.weight != WEIGHTS[0]]
    lines = [f"{case}: {line}" for case in grid for line in broken(case)]
    assert not lines, "\n".join(lines)
    count("T2", len(grid))


@pytest.mark.parametrize("causal", ["none", "square"])
def test_normalised_rows_beyond_a_chunk(causal, count):
    """Few and narrow: their natural error needs a Jacobian for each row."""
    lines = []
    for length in (49, 97, 130):
        case = Case(length, "dot", WEIGHTS[0], causal, heads=1, width=3, value_width=2)
        lines += broken(replace(case, queries=length, keys=length))
    assert not lines, lines
    count("T2", 3)


@pytest.mark.parametrize("causal", [False, True])
def test_long_normalised_rows(causal):
    """1500 keys, all scores positive: output and dv within twice the definition's error and nat."""
    draw = torch.Generator().manual_seed(0)
    positive = [torch.rand(1, 1, 1500, 16, generator=draw) + 0.1 for _ in range(2)]
    tensors = [*positive, torch.randn(1, 1, 1500, 16, generator=draw)]
    grad = torch.randn(1, 1, 1500, 16, generator=draw)

    def run(impl, dtype):
        leaves = [t.to(dtype).requires_grad_() for t in tensors]
        out = attention(*leaves, weight=WEIGHTS[0], is_causal=causal, impl=impl)
        return out.detach(), torch.autograd.grad(out, leaves[2], grad.to(dtype))[0]

    query, key, value = (t.double() for t in tensors)
    scores = query @ key.mT / 4
    scores = scores.tril() if causal else scores
    total = scores.sum(-1, keepdim=True)
    reach = 2 * scores + scores.amax(-1, keepdim=True)
    reach = reach.tril() if causal else reach
    weights = scores / total  # nat of a weight: |w| + |J| R, as in natural.py
    carried = weights + reach / total + weights / total * reach.sum(-1, keepdim=True)
    nats = carried @ value.abs(), carried.mT @ grad.double().abs()
    found, plain = run("linear", torch.float32), run("reference", torch.float32)
    exact = run("reference", torch.float64)
    for mine, eager, true, nat in zip(found, plain, exact, nats, strict=True):
        error, known = (float((t.double() - true).abs().max()) for t in (mine, eager))
        assert error <= 2 * known + torch.finfo(torch.float32).eps * float(nat.max())


# --- derivatives ------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"is_causal": True, "q_offset": 2}])
def test_gradients_by_differences(weight, options):
    case = Case(3, weight=weight, heads=4, group=2, queries=7, keys=7, value_width=3)
    call = build_call(replace(case, dtype=torch.float64))
    leaves = [t.requires_grad_() for t in call.inputs.values()]
    mask = torch.tensor([True, True, False, True, True, True, True])

    def run(*tensors):
        return attention(
            *tensors, weight=weight, attn_mask=mask, enable_gqa=True, impl="linear", **options
        )

    assert gradcheck(run, leaves)
    assert gradgradcheck(run, leaves)


# --- bits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("causal", ["none", "square"])
def test_the_same_bits(weight, causal, count):
    """From run to run, for one thread and two, for a slice of the batch, into fresh NaN."""
    call = build_call(Case(4, "dot", weight, causal, batch=3, queries=101, keys=101, width=17))
    first = ours(call, "linear")

    def same(second, part=slice(None)):
        assert all(torch.equal(first[name][part], second[name]) for name in first)

    for _ in range(20):
        same(ours(call, "linear"))
    torch.set_num_threads(2)
    try:
        same(ours(call, "linear"))
    finally:
        torch.set_num_threads(1)
    call.inputs = {n: t[1:2] for n, t in call.inputs.items()}
    call.grad = call.grad[1:2]
    same(ours(call, "linear"), slice(1, 2))
    count("T8", 22)


def test_any_layout_gives_the_same_bits(count):
    """Each tensor in turn with strides of its own, keys also without any."""
    call = build_call(Case(9, "dot", WEIGHTS[0], "square", batch=2, queries=60, keys=60, width=8))
    plain = ours(call, "linear")
    layouts = {
        "turned": lambda t: t.mT.contiguous().mT,
        "every other": lambda t: t.repeat_interleave(2, -1)[..., ::2],
        "heads last": lambda t: t.transpose(1, 2).contiguous().transpose(1, 2),
        "inside": lambda t: torch.nn.functional.pad(t, (3, 2, 1, 4), value=torch.nan)[
            ..., 1:-4, 3:-2
        ],
    }
    tensors = {**call.inputs, "grad": call.grad}
    for name in tensors:
        for layout in layouts.values():
            moved = {**tensors, name: layout(tensors[name])}
            leaves = [moved[n].detach().requires_grad_() for n in ("query", "key", "value")]
            out = attention(*leaves, weight=call.weight, is_causal=True, impl="linear")
            grads = torch.autograd.grad(out, leaves, moved["grad"])
            for found, expected in zip((out, *grads), plain.values(), strict=True):
                assert torch.equal(found, expected), name
    count("T5", 16)


# --- NaN and infinities -----------------------------------------------------------------------


def masked_call(weight: str, bad: float, causal: str = "none") -> cases.Call:
    """Keys 2 and 5 of seven hidden and bad, and a batch item that sees nothing."""
    call = build_call(Case(5, "dot", weight, causal, batch=2, queries=7, keys=7, mask="none"))
    seen = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    seen[:, :, :, (2, 5)] = False
    seen[1] = False
    call.options["attn_mask"] = seen
    call.inputs = {n: t.clone() for n, t in call.inputs.items()}
    for name in ("key", "value"):
        call.inputs[name][:, :, (2, 5)] = bad
        call.inputs[name][1] = bad
    return call


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("causal", ["none", "square"])
def test_hidden_values_change_no_bit(weight, causal, count):
    clean = ours(masked_call(weight, 1.0, causal), "linear")
    assert not clean["out"][1].any()
    assert not any(clean[n][:, :, (2, 5)].any() or clean[n][1].any() for n in ("key", "value"))
    for bad in (torch.nan, torch.inf, 3e38, 1e-40):
        dirty = ours(masked_call(weight, bad, causal), "linear")
        assert all(torch.equal(clean[name], dirty[name]) for name in clean), bad
    count("T4", 4)


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 3e38])
def test_what_is_seen_shows_and_the_past_keeps_its_bits(weight, bad, count):
    clean = build_call(Case(6, "dot", weight, "square", queries=60, keys=60))
    for name in ("key", "value", "query"):
        dirty = build_call(clean.case)
        dirty.inputs[name][0, 0, 50, 1] = bad
        before, after = ours(clean, "linear"), ours(dirty, "linear")
        for tensor in ("out", "query"):
            assert torch.equal(before[tensor][:, :, :50], after[tensor][:, :, :50]), name
            assert torch.equal(before[tensor][:, 1], after[tensor][:, 1]), name
        if bad != 3e38:
            truth = theirs(dirty, torch.float64)
            assert same_specials(after["out"], truth["out"]) or bad not in (torch.nan,)
            finite = [torch.equal(after[n].isfinite(), truth[n].isfinite()) for n in truth]
            assert all(finite), f"{name}: {finite}"
    count("T4", 3)


@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e12, 1e17])
@pytest.mark.parametrize("name", ["query", "key", "value"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_sizes_whose_products_leave_the_range(weight, name, size, count):
    """A state may overflow where the definition does not: such inputs are scaled, exactly."""
    call = build_call(Case(7, "dot", weight, "square", queries=50, keys=50, scale=1.0))
    others = {n: t * (1 / size if size > 1 and n != name else 1.0) for n, t in call.inputs.items()}
    call.inputs = others | {name: call.inputs[name] * size}
    lines = cases.broken_by(call, ("linear",))
    assert not lines, lines
    count("T7", 1)


# --- choosing ---------------------------------------------------------------------------------


def tensors(length: int, width: int = 16, **more) -> list[torch.Tensor]:
    return [torch.rand(1, 2, length, width) for _ in range(3)]


REFUSED = {
    "softmax": {"weight": "softmax"},
    "softcap": {"score": "dot,softcap(2)"},
    "distance": {"score": "distance"},
    "bias": {"attn_bias": torch.zeros(9)},
    "float": {"attn_mask": torch.zeros(9)},
    "mask": {"attn_mask": torch.ones(9, 9, dtype=torch.bool)},
    "window": {"window_size": (2, 0)},
    "dropout": {"dropout_p": 0.5},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_refuses_by_name(name):
    with pytest.raises(ImplUnavailable, match="linear"):
        attention(
            *tensors(9), **({"weight": "linear(normalise=false)"} | REFUSED[name]), impl="linear"
        )


def test_a_mask_of_one_head_of_a_group_is_refused():
    query, key, value = torch.rand(1, 4, 9, 8), torch.rand(1, 2, 9, 8), torch.rand(1, 2, 9, 8)
    mask = torch.ones(1, 4, 1, 9, dtype=torch.bool)
    options = {"weight": "identity", "enable_gqa": True, "impl": "linear"}
    with pytest.raises(ImplUnavailable, match="group"):
        attention(query, key, value, attn_mask=mask, **options)
    attention(query, key, value, attn_mask=mask[:, :1], **options)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_auto_takes_it_where_rows_are_long(weight):
    for length, width, expected in ((8, 64, "pairs"), (256, 16, "linear")):
        attention(*tensors(length, width), weight=weight)
        assert (last_impl() == "linear") == (expected == "linear")


def test_native_takes_it_where_it_is_cheaper(monkeypatch):
    met = []
    real = compiled.run_linear
    monkeypatch.setattr(reassociated, "run_linear", lambda *a, **k: met.append(1) or real(*a, **k))
    for length, width, times in ((8, 64, 0), (256, 16, 1)):
        met.clear()
        attention(*tensors(length, width), weight="linear(normalise=true)", impl="native")
        assert len(met) == times
        assert last_impl() == "native"


def test_a_layer_of_linear_attention():
    """The mechanism of Katharopoulos 2020, as sites: causal, trained through, the same by pairs."""
    layer = Attention(32, 2, sites="query=elu1 key=elu1 weight=linear(normalise=true)")
    x = torch.randn(2, 300, 32, requires_grad=True)
    out = layer(x, is_causal=True)
    assert last_impl() == "linear"
    layer.impl = "reference"
    expected = layer(x, is_causal=True)
    torch.testing.assert_close(out, expected, rtol=1e-4, atol=1e-5)
    slopes = [torch.autograd.grad(o.square().sum(), x)[0] for o in (out, expected)]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-5)


def test_memory_is_linear_in_length():
    """20,000 keys: a matrix of pairs would be 1.6 GB."""
    leaves = [torch.rand(1, 1, 20_000, 8).requires_grad_() for _ in range(3)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attention(*leaves, weight=WEIGHTS[0], is_causal=True, impl="linear").sum().backward()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 200_000  # kilobytes


# --- registered operators ---------------------------------------------------------------------


@pytest.mark.parametrize("causal", ["none", "offset"])
@pytest.mark.parametrize("weight", WEIGHTS)
def test_operators(weight, causal, monkeypatch, count):
    from ogive.kernels import linear

    seen: list[reassociated.Reassociated] = []
    real = linear.apply
    monkeypatch.setattr(linear, "apply", lambda call: seen.append(call) or real(call))
    call = build_call(Case(8, "dot", weight, causal, mask="bool", broadcast="b11j"))
    with torch.no_grad():
        attention(**call.inputs, weight=call.weight, impl="linear", **call.options)
    inputs = tuple(vars(seen[0]).values())
    checked = torch.library.opcheck(torch.ops.ogive.linear.default, inputs)
    assert set(checked.values()) == {"SUCCESS"}
    out, total = torch.ops.ogive.linear(*inputs)
    back = (torch.ones_like(out), out, total, *inputs)
    checked = torch.library.opcheck(torch.ops.ogive.linear_backward.default, back)
    assert set(checked.values()) == {"SUCCESS"}
    count("T12", 2)


# --- wrong twins ------------------------------------------------------------------------------


def walked(twin: str):
    """Linear attention chunk by chunk in torch, with one bug of its kind."""

    def run(*, query, key, value, score, weight, impl, scale=None, **rest):
        chunk, rows, totals = 4, [], []
        state = value.new_zeros(*key.shape[:2], key.shape[-1], value.shape[-1])
        mass = key.new_zeros(*key.shape[:2], 1, key.shape[-1])
        for at in range(0, query.shape[-2], chunk):
            q, k, v = (t[:, :, at : at + chunk] for t in (query, key, value))
            inside = (q @ k.mT).tril(-1 if twin == "the triangle lost its diagonal" else 0)
            rows.append(q @ state + inside @ v)
            total = q @ mass.mT
            if twin != "a row's sum leaves out its own chunk":
                total = total + inside.sum(-1, keepdim=True)
            totals.append(total)
            if twin == "a state forgets the last key of a chunk":
                k, v = k[:, :, :-1], v[:, :, :-1]
            added = k.mT @ v
            if twin == "a state in half precision":
                added = added.bfloat16().float()
            state, mass = state + added, mass + k.sum(-2, keepdim=True)
        out, total = torch.cat(rows, -2), torch.cat(totals, -2)
        if twin == "sums cut from the graph":
            total = total.detach()
        return out / torch.where(total == 0, 1, total)

    return run


TWINS = (
    "the triangle lost its diagonal",
    "a row's sum leaves out its own chunk",
    "a state forgets the last key of a chunk",
    "a state in half precision",
    "sums cut from the graph",
)


def twin_broken(twin: str) -> int:
    grid = [
        Case(seed, "dot", WEIGHTS[0], "square", queries=11, keys=11, width=5) for seed in range(12)
    ]
    return sum(bool(broken(case, walked(twin))) for case in grid)


@pytest.mark.parametrize("twin", TWINS)
def test_the_rule_kills(twin, record_property):
    caught = twin_broken(twin)
    record_property("twin", f"linear, {twin}: {caught}/12")
    assert caught == 12


def test_the_walk_without_a_bug_is_right():
    assert twin_broken("none") == 0

"""How tensors reach the kernels: by DLPack's C interface, by addresses, and by the short way."""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from kernels import cases
from kernels.cases import Case, build_call
from kernels.rule import violations
from kernels.test_t05_layouts import LAYOUTS
from ogive.errors import OgiveError
from ogive.kernels import attention, compiled, last_impl, quick
from ogive.parts import Sizes, build, scores, weights

pytestmark = pytest.mark.skipif(
    compiled.missing is not None, reason=f"no kernels were compiled here: {compiled.missing}"
)
NAMES = ("query", "key", "value")
WEIGHTS = (
    *("softmax", "softmax1", "cog", "softpick", "sigmoid(bias=-log_n)", "sigmoid(bias=-1)"),
    *("tanh", "relu(length_power=1)", "gelu(length_power=0.5)", "identity", "linear"),
)
DTYPES = cases.DTYPES


def tensors(length=9, keys=None, width=8, value_width=8, dtype=torch.float32) -> list[Tensor]:
    draw = torch.Generator().manual_seed(length + width)
    shapes = ((length, width), (keys or length, width), (keys or length, value_width))
    return [torch.randn(2, 3, *shape, generator=draw).to(dtype) for shape in shapes]


@pytest.fixture
def ways(monkeypatch):
    """Calls of the short way that it answered, of which nothing is learned yet."""
    taken: list[str] = []
    real = compiled.attend

    def spy(curve, *rest):
        answered = real(curve, *rest)
        if answered == "ran":
            taken.append(curve)
        return answered

    monkeypatch.setattr(compiled, "attend", spy)
    quick._plans.clear()
    return taken


def expanded(x: Tensor) -> Tensor:
    return x[:1].expand_as(x)


# --- DLPack's interface and addresses ---------------------------------------------------------


def test_this_torch_offers_the_interface():
    assert (compiled.binding == "exchange") == hasattr(torch.Tensor, "__dlpack_c_exchange_api__")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", [*LAYOUTS.values(), expanded], ids=lambda f: f.__name__)
def test_both_bindings_read_the_same_numbers(layout, dtype, monkeypatch, count, nan_memory):
    """Forward and backward, with a mask, a learned bias, offsets and grouped heads: every bit."""
    for weight, mask in itertools.product(("softmax", "tanh"), ("learned bias", "bool")):
        sizes = {"batch": 2, "heads": 4, "group": 2, "queries": 7, "keys": 12, "width": 9}
        case = Case(3, weight=weight, mask=mask, causal="tensor", dtype=dtype, **sizes)
        call = build_call(case)
        for name in NAMES:
            call.inputs[name] = layout(call.inputs[name])
        call.grad = layout(call.grad)
        found = []
        for binding in {compiled.binding, "addresses"}:
            monkeypatch.setattr(compiled, "binding", binding)
            found.append(cases.ours(call, "native"))
        for name, tensor in found[0].items():
            assert torch.equal(tensor, found[-1][name]), (name, case)
    count("T5", 4)


WITHOUT = """
import torch
if hasattr(torch.Tensor, "__dlpack_c_exchange_api__"):
    del torch.Tensor.__dlpack_c_exchange_api__
import ogive
from ogive.kernels import compiled
assert compiled.binding == "addresses", compiled.binding
torch.manual_seed(0)
inputs = [torch.randn(2, 3, 9, 8, requires_grad=True) for _ in range(3)]
for weight in ("softmax", "tanh"):
    for _ in range(3):
        out = ogive.attention(*inputs, weight=weight, is_causal=True, impl="native")
        with torch.no_grad():
            assert torch.equal(
                out, ogive.attention(*inputs, weight=weight, is_causal=True, impl="native")
            )
        assert ogive.last_impl() == "native"
    grads = torch.autograd.grad(out, inputs, torch.ones_like(out))
    for tensor in (out, *grads):
        print(tensor.detach().flatten().view(torch.int32).tolist())
"""


def test_a_torch_without_the_interface():
    """Another process, whose torch lacks it, computes the same bits by addresses."""
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    lines = iter(run.stdout.splitlines())
    torch.manual_seed(0)
    inputs = [torch.randn(2, 3, 9, 8, requires_grad=True) for _ in range(3)]
    for weight in ("softmax", "tanh"):
        out = attention(*inputs, weight=weight, is_causal=True, impl="native")
        for tensor in (out, *torch.autograd.grad(out, inputs, torch.ones_like(out))):
            assert tensor.detach().flatten().view(torch.int32).tolist() == ast.literal_eval(
                next(lines)
            )


def test_the_module_refuses_what_it_cannot_read():
    run, q = compiled._native.run, torch.randn(1, 1, 2, 2)
    sizes, reals = (1, 1, 1, 2, 2, 2, 2, -1, -1, 1, 0, 0, 0, 0), (1.0, 0.0, 0.0, 0.0)
    views = (q, q, q, torch.empty_like(q), *[None] * 13)
    assert run("baseline", "softmax", False, False, views, sizes, reals) is False
    wrong = [
        ("number of tensors", views[:-1], sizes, reals),
        ("number of numbers", views, sizes[:-1], reals),
        ("number of reals", views, sizes, reals[:-1]),
        ("at most 4 axes", (*views[:-1], q[None]), sizes, reals),
        ("of a CPU", (*views[:-1], q.to("meta")), sizes, reals),
        ("of a CPU", (*views[:-1], "no tensor"), sizes, reals),
    ]
    for words, *arguments in wrong:
        with pytest.raises(ValueError, match=words):
            run("baseline", "softmax", False, False, *arguments)
    with pytest.raises(ValueError, match="incorrect name"):
        compiled._native.use_exchange(torch.randn(2).__dlpack__())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("inputs", [torch.float32, torch.bfloat16], ids=str)
def test_a_bias_of_another_dtype(inputs, dtype, count):
    """Read as it is stored; its gradient has its dtype and the rule's precision."""
    call = build_call(Case(4, mask="learned bias", queries=9, keys=12, width=8, dtype=inputs))
    call.inputs["bias"] = call.inputs["bias"].to(dtype)
    found = cases.ours(call, "native")
    assert found["bias"].dtype == dtype
    assert found["out"].dtype == inputs
    truth, eager = cases.theirs(call, torch.float64), cases.theirs(call, inputs)
    if dtype in (torch.bfloat16, torch.float16):  # its own rounding comes on top
        eager["bias"] = truth["bias"].to(dtype).double() + (eager["bias"] - truth["bias"])
    assert not violations(found, eager, truth, cases.naturals(call), inputs)
    count("T1", 1)


# --- the short way ----------------------------------------------------------------------------


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_short_way_gives_the_same_bits(weight, dtype, ways, count, nan_memory):
    """Lengths, widths, causality, scales and layouts; linear attention keeps its own two ways."""
    done = 0
    lengths = ((1, None), (9, None), (17, 5), (130, None))
    for (length, keys), causal, width in itertools.product(lengths, (False, True), (8, 5)):
        if causal and keys:
            continue
        plain = tensors(length, keys, width, 8, dtype)
        for scale, layout in ((None, None), (0.3, "heads_last"), (-1.0, "every_second")):
            query, key, value = [LAYOUTS[layout](t) for t in plain] if layout else plain
            given = {"weight": weight, "is_causal": causal, "scale": scale, "impl": "native"}
            quick._plans.clear()
            long = attention(query, key, value, **given)
            before = len(ways)
            short = attention(query, key, value, **given)
            two_ways = weight in ("identity", "linear")
            assert len(ways) == before + (not two_ways), (weight, length, causal)
            assert torch.equal(short, long)
            assert short.stride() == long.stride() or layout
            done += 1
    count("T1", done)


def test_what_comes_out_is_an_ordinary_tensor(ways):
    query, key, value = tensors()
    for _ in range(2):
        out = attention(query, key, value, impl="native")
    assert ways
    assert not out.requires_grad
    assert not out.is_inference()
    assert out._version == 0
    with torch.inference_mode():
        assert attention(query, key, value, impl="native").is_inference()
    before = out.clone()
    again = attention(query, key, value, impl="native")
    out.zero_()
    assert torch.equal(again, before), "each call has memory of its own"
    out.resize_(1, 1, 40, 40)


class Counting(TorchDispatchMode):
    """Which operators of this library torch's dispatcher saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "ogive":
            self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Labelled(Tensor):
    """A subclass, as users make them."""


def call_native(*inputs: Tensor) -> Tensor:
    return attention(*inputs, weight="tanh", impl="native")


def test_who_watches_operators_sees_them(ways):
    inputs = tensors()
    plain = call_native(*inputs)
    call_native(*inputs)
    assert len(ways) == 1
    with Counting() as mode:
        assert torch.equal(call_native(*inputs), plain)
        leaves = [t.clone().requires_grad_() for t in inputs]
        call_native(*leaves).sum().backward()
    assert mode.seen == ["ogive.dense.default"] * 2 + ["ogive.dense_backward.default"]
    with torch.profiler.profile() as profile:
        call_native(*inputs)
    assert any(event.name == "ogive::dense" for event in profile.events())
    with FlopCounterMode(display=False):
        call_native(*inputs)
    assert len(ways) == 1


def by(inputs: list[Tensor], grad: Tensor, **given) -> list[Tensor]:
    """The output and the gradients of those inputs that want one."""
    leaves = [t.detach().requires_grad_(t.requires_grad) for t in inputs]
    out = attention(*leaves, impl="native", **given)
    wanted = [t for t in leaves if t.requires_grad]
    return [out.detach(), *torch.autograd.grad(out, wanted, grad)]


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradients_of_the_short_way_have_the_same_bits(weight, dtype, ways, count, nan_memory):
    """Those of some inputs or of all; causal, grouped, strided, with a visible infinity."""
    done = 0
    for length, causal, wild in itertools.product((1, 9, 130), (False, True), (False, True)):
        draw = torch.Generator().manual_seed(length)
        query = torch.randn(2, 4, length, 8, generator=draw).to(dtype)
        key, value = (torch.randn(2, 2, length, 8, generator=draw).to(dtype) for _ in range(2))
        grad = torch.randn(2, 4, length, 8, generator=draw).to(dtype)
        if wild:
            value[0, 0, length // 2, 3] = torch.inf
        layout = LAYOUTS["heads_last"] if length == 9 else lambda x: x
        for wanted in ((0,), (1, 2), (0, 1, 2)):
            inputs = [layout(t) for t in (query, key, value)]
            for at in wanted:
                inputs[at].requires_grad_()
            given = {"weight": weight, "is_causal": causal, "enable_gqa": True}
            quick._plans.clear()
            long = by(inputs, layout(grad), **given)
            short = by(inputs, layout(grad), **given)
            for one, other in zip(long, short, strict=True):
                assert torch.equal(one.isnan(), other.isnan())
                assert torch.equal(one.nan_to_num(), other.nan_to_num())
            done += 1
    assert bool(ways) == (weight not in ("identity", "linear"))
    count("T1", done)


def test_gradients_of_gradients_and_many_at_once(ways):
    inputs = [t.double().requires_grad_() for t in tensors(5, width=3, value_width=3)]
    call_native(*inputs)
    assert torch.autograd.gradcheck(call_native, inputs)
    assert torch.autograd.gradgradcheck(call_native, inputs)
    assert ways
    out = call_native(*inputs)
    many = torch.stack([torch.ones_like(out), torch.randn_like(out)])
    expected = [torch.autograd.grad(out, inputs, g, retain_graph=True) for g in many]
    found = torch.autograd.grad(out, inputs, many, is_grads_batched=True, retain_graph=True)
    for at, tensor in enumerate(found):
        assert torch.equal(tensor, torch.stack([e[at] for e in expected]))
    with Counting() as mode:
        watched = torch.autograd.grad(out, inputs, many[0])
    assert mode.seen == ["ogive.dense_backward.default"]
    assert all(torch.equal(a, b) for a, b in zip(watched, expected[0], strict=True))


def test_a_frozen_tensor_changed_in_place_is_noticed(ways):
    inputs = [t.requires_grad_() for t in tensors()]
    for _ in range(2):
        out = call_native(*inputs)
    with torch.no_grad():
        inputs[1].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
    assert ways


def test_grouped_heads_are_asked_for_on_the_short_way_too(ways):
    query, (key, value) = tensors()[0], (t[:, :1] for t in tensors()[1:])
    for _ in range(2):
        out = attention(query, key, value, weight="tanh", impl="native", enable_gqa=True)
    assert len(ways) == 1
    whole = [t.expand_as(query) for t in (key, value)]
    assert torch.equal(out, attention(query, *whole, weight="tanh", impl="native"))
    with pytest.raises(OgiveError, match="enable_gqa"):
        attention(query, key, value, weight="tanh", impl="native")


def test_other_tensors_go_the_long_way(ways):
    inputs = tensors()
    plain = call_native(*inputs)
    call_native(*inputs)
    labelled = [t.as_subclass(Labelled) for t in inputs]
    assert torch.equal(call_native(*labelled).as_subclass(Tensor), plain)
    pairs = [torch.complex(torch.zeros_like(t), -t).conj() for t in inputs]
    negative = [t.imag for t in pairs]
    assert all(t.is_neg() for t in negative)
    assert torch.equal(call_native(*negative), plain)
    with FakeTensorMode() as mode:
        assert call_native(*[mode.from_tensor(t) for t in inputs]).shape == plain.shape
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert call_native(*inputs).dtype == torch.bfloat16
    assert len(ways) == 1
    parameters = [torch.nn.Parameter(t, requires_grad=False) for t in inputs]
    assert torch.equal(call_native(*parameters), plain)
    assert len(ways) == 2, "a parameter is as plain as a tensor"


def test_transforms_are_refused_by_the_name_though_it_was_learned(ways):
    inputs = tensors()
    for _ in range(2):
        call_native(*inputs)
    with pytest.raises(OgiveError, match="transforms"):
        torch.func.vmap(call_native)(*[t[None] for t in inputs])
    with pytest.raises(OgiveError, match="transforms"):
        torch.func.jvp(call_native, tuple(inputs), tuple(inputs))
    with forward_ad.dual_level(), pytest.raises(OgiveError, match="transforms"):
        call_native(forward_ad.make_dual(inputs[0], inputs[0]), *inputs[1:])
    with pytest.raises(OgiveError, match="run on a CPU"):
        call_native(*[t.to("meta") for t in inputs])
    assert len(ways) == 1


BAD = [
    {"query": None},
    {"key": [[1.0]]},
    {"query": torch.ones(2, 3, 9)},
    {"value": torch.ones(9)},
    {"key": torch.ones(2, 3, 9, 8, dtype=torch.float64)},
    {"value": torch.ones(2, 3, 9, 8, dtype=torch.int32)},
    {"query": torch.ones(2, 3, 9, 8, dtype=torch.complex64)},
    {"key": torch.ones(2, 3, 9, 7)},
    {"value": torch.ones(2, 3, 8, 8)},
    {"value": torch.ones(2, 2, 9, 8)},
    {"key": torch.ones(1, 3, 9, 8)},
    {"key": torch.ones(2, 1, 9, 8), "value": torch.ones(2, 1, 9, 8)},
    {"value": torch.ones(2, 3, 9, 8, device="meta")},
    {"query": torch.ones(2, 3, 9, 8).to_sparse()},
    {"key": torch.ones(2, 3, 8, 8), "value": torch.ones(2, 3, 8, 8), "is_causal": True},
    {"scale": float("nan")},
    {"scale": float("inf")},
    {"scale": True},
    {"scale": "0.5"},
    {"is_causal": 1},
    {"enable_gqa": None},
    {"dropout_p": 1.0},
    {"dropout_p": True},
    {"weight": "tanhh"},
    {"weight": 3},
    {"score": "dott"},
    {"impl": "nativ"},
    {"impl": ["native"]},
]


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: "-".join(bad))
def test_errors_are_the_same_on_both_ways(bad, ways):
    query, key, value = tensors()
    given = {"query": query, "key": key, "value": value, "weight": "tanh", "impl": "native"}
    messages = []
    for learned in (False, True):
        quick._plans.clear()
        for causal in (False, True) if learned else ():
            attention(**given, is_causal=causal)
        with pytest.raises(OgiveError) as raised:
            attention(**(given | bad))
        messages.append((type(raised.value), str(raised.value)))
    assert messages[0] == messages[1]
    assert not ways


def test_hidden_wild_numbers_change_no_bit_and_visible_ones_show(ways, count):
    done = 0
    for weight, wild in itertools.product(("softmax", "tanh"), (torch.nan, torch.inf, 1e30)):
        given = {"weight": weight, "is_causal": True, "impl": "native"}
        query, key, value = tensors(60)
        plain = attention(query, key, value, **given)
        assert torch.equal(attention(query, key, value, **given), plain)
        for name in ("key", "value"):
            inputs = {"query": query, "key": key, "value": value}
            inputs[name] = inputs[name].clone()
            inputs[name][:, :, 40] = wild
            found = attention(**inputs, **given)
            assert torch.equal(found[:, :, :40], plain[:, :, :40])
            quick._plans.clear()
            long = attention(**inputs, **given)
            assert torch.equal(found.nan_to_num(), long.nan_to_num())
            assert torch.equal(found.isnan(), long.isnan())
            assert last_impl() == "native"
            done += 1
    count("T4", done)


def test_four_python_threads(ways):
    inputs = tensors(130)
    plain = [attention(*inputs, weight=w, impl="native") for w in ("softmax", "tanh")]

    def run(index: int) -> bool:
        weight = ("softmax", "tanh")[index % 2]
        return torch.equal(attention(*inputs, weight=weight, impl="native"), plain[index % 2])

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(200)))
    assert len(ways) == 200


def test_what_is_learned_is_bounded(ways):
    for length in range(1, quick.MOST_PLANS + 20):
        attention(*tensors(length, 1), weight="tanh", impl="native")
    assert len(quick._plans) <= quick.MOST_PLANS


def test_parts_take_the_short_way_as_names_do(ways):
    """What a part holds decides, so one that was changed is not taken for what it was."""
    inputs, dot = tensors(), scores.Dot().setup(Sizes(24, 3, 8))
    plain = attention(*inputs, weight="relu(length_power=1)", impl="native")
    part = build("weight", "relu(length_power=1)").setup(Sizes(24, 3, 8))
    for short in (0, 1):
        assert torch.equal(attention(*inputs, score=dot, weight=part, impl="native"), plain)
        assert len(ways) == short
    part.length_power = 0.0
    found = attention(*inputs, score=dot, weight=part, impl="native")
    assert len(ways) == 1
    torch.testing.assert_close(found, plain * 9)


def test_a_new_part_under_an_old_name_is_not_mistaken(ways):
    """What was learned of a name is forgotten when any part class is defined."""
    inputs = tensors()
    for _ in range(2):
        attention(*inputs, weight="tanh", impl="native")

    class Newer(weights.Weight, listed=False):
        """Defined to change the generation."""

    attention(*inputs, weight="tanh", impl="native")
    assert len(ways) == 1
    attention(*inputs, weight="tanh", impl="native")
    assert len(ways) == 2

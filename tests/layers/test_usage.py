"""What users do with a module: compile, cast, checkpoint, copy, save, spread over processes."""

from __future__ import annotations

import copy
import io
import itertools
import pickle

import pytest
import torch
from torch import multiprocessing
from torch.utils.checkpoint import checkpoint

from layers import spawned
from layers.cases import ABSOLUTE, HEADS, POSITIONS, WEIGHTS, WIDTH, close, drawn, shaken
from ogive.layers import Attention
from sampling import sampled

BUSY = (
    "query=conv(3),rmsnorm(gain=true),gelu key=conv(2) value=glu(silu,width=match) "
    "mixed=gate(sigmoid) output=gate(sigmoid)"
)
SITES = ("", BUSY, "weight=sink score=additive(tanh)", "weight=sigmoid(bias=-log_n)")
GRID = list(itertools.product(SITES, POSITIONS))


def layer_of(sites, positions, **more):
    return shaken(Attention(WIDTH, HEADS, kv_heads=2, sites=sites, positions=positions, **more))


COMPILED = sampled(
    itertools.product(("", BUSY, *(f"weight={w}" for w in WEIGHTS)), (*POSITIONS, *ABSOLUTE)),
    6,
    "compile",
)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What a process without shape checks found: dynamo cannot trace the checks."""
    path = tmp_path_factory.mktemp("compiled") / "findings"
    multiprocessing.spawn(spawned.compile_all, (COMPILED, BUSY, str(path)), nprocs=1)
    return torch.load(path)


@pytest.mark.parametrize("case", COMPILED)
def test_compiles_whole_with_any_length(compiled, case):
    assert isinstance(compiled[case], tuple), compiled[case]
    graphs, error = compiled[case]
    assert graphs == 1, "one graph serves all lengths"
    assert error < 1e-9


def test_compiled_gradients(compiled):
    assert isinstance(compiled["gradients"], list), compiled["gradients"]
    for ours, wanted in compiled["gradients"]:
        close(ours, wanted)


def test_compiled_decoding(compiled):
    assert isinstance(compiled["decoding"], tuple), compiled["decoding"]
    close(*compiled["decoding"])


@pytest.mark.parametrize(("sites", "positions"), GRID)
def test_autocast(sites, positions):
    layer = layer_of(sites, positions).float()
    x = drawn(2, 6, WIDTH).float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, is_causal=True)
    out.float().square().sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in layer.parameters())
    assert all(p.grad.isfinite().all() for p in (x, *layer.parameters()))
    error = (out.float() - layer(x, is_causal=True)).norm() / out.float().norm()
    assert error < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize(("sites", "positions"), GRID)
def test_dtypes(sites, positions, dtype):
    layer = layer_of(sites, positions).to(dtype)
    x = drawn(2, 6, WIDTH).to(dtype)
    assert layer(x, is_causal=True).dtype == dtype


@pytest.mark.parametrize(("sites", "positions"), GRID)
def test_inference_mode_before_training(sites, positions):
    """Nothing made under inference_mode stays behind to break the backward pass."""
    layer, x = layer_of(sites, positions), drawn(2, 6, WIDTH)
    with torch.inference_mode():
        first = layer(x, is_causal=True)
    out = layer(x, is_causal=True)
    close(first, out)
    out.sum().backward()


@pytest.mark.parametrize(("sites", "positions"), GRID)
def test_checkpointing(sites, positions):
    layer, twin = layer_of(sites, positions, dropout=0.3), layer_of(sites, positions, dropout=0.3)
    for module, run in ((layer, lambda x: checkpoint(layer, x, use_reentrant=False)), (twin, twin)):
        torch.manual_seed(5)
        x = drawn(2, 6, WIDTH).requires_grad_()
        run(x).square().sum().backward()
        module.saved = x.grad
    close(layer.saved, twin.saved)
    for ours, wanted in zip(layer.parameters(), twin.parameters(), strict=True):
        close(ours.grad, wanted.grad)


@pytest.mark.parametrize(("sites", "positions"), GRID)
@pytest.mark.parametrize("way", ["deepcopy", "pickle", "save"])
def test_copies(sites, positions, way):
    layer, x = layer_of(sites, positions), drawn(2, 6, WIDTH)
    if way == "deepcopy":
        twin = copy.deepcopy(layer)
    elif way == "pickle":
        twin = pickle.loads(pickle.dumps(layer))
    else:
        file = io.BytesIO()
        torch.save(layer, file)
        file.seek(0)
        twin = torch.load(file, weights_only=False)
    wanted = layer(x)
    assert torch.equal(twin(x), wanted)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    assert torch.equal(twin(x), wanted)


@pytest.mark.parametrize(("sites", "positions"), GRID)
def test_state_dict_round_trips_strictly(sites, positions):
    layer, x = layer_of(sites, positions), drawn(2, 6, WIDTH)
    twin = Attention(WIDTH, HEADS, kv_heads=2, sites=sites, positions=positions).double()
    twin.load_state_dict(layer.state_dict(), strict=True)
    assert torch.equal(twin(x), layer(x))


@pytest.mark.parametrize(("sites", "positions"), GRID)
def test_meta_device(nan_memory, sites, positions):
    """Built without memory, then given some and started: no parameter is forgotten."""
    with torch.device("meta"):
        layer = Attention(WIDTH, HEADS, kv_heads=2, sites=sites, positions=positions)
        assert layer(torch.empty(2, 6, WIDTH), is_causal=True).shape == (2, 6, WIDTH)
    assert all(t.is_meta for t in layer.state_dict().values())
    layer.to_empty(device="cpu")
    assert all(p.isnan().all() for p in layer.parameters())
    for module in layer.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    assert layer(torch.randn(2, 6, WIDTH), is_causal=True).isfinite().all()


@pytest.mark.parametrize(("sites", "positions"), GRID)
def test_functional_call(sites, positions):
    layer, x = layer_of(sites, positions), drawn(2, 6, WIDTH)
    other = shaken(copy.deepcopy(layer), seed=7)
    out = torch.func.functional_call(layer, dict(other.named_parameters()), (x,))
    close(out, other(x))
    assert not torch.allclose(out, layer(x))


def test_distributed_gradients_are_means(tmp_path):
    meeting, result = str(tmp_path / "meeting"), str(tmp_path / "gradients")
    multiprocessing.spawn(spawned.gradients, (meeting, result), nprocs=2)
    whole = spawned.model()
    (sum(whole(spawned.tokens(rank)).square().mean() for rank in (0, 1)) / 2).backward()
    for rank in (0, 1):
        came = torch.load(f"{result}.{rank}")
        for name, parameter in whole.named_parameters():
            close(came[name], parameter.grad)

"""Layers and models compiled, cast, checkpointed and spread over processes: the plain numbers."""

from __future__ import annotations

import pytest
import torch
from torch import multiprocessing

from layers import usage_cases
from layers.usage_cases import USAGES, Checkpointed, build, step


def same(came, wanted, tolerance=1e-9):
    assert isinstance(came, dict), came
    assert came.keys() == wanted.keys()
    for name, tensor in wanted.items():
        torch.testing.assert_close(came[name], tensor, rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / "steps"
    multiprocessing.spawn(usage_cases.compiled, (str(path),), nprocs=1)
    return torch.load(path)


@pytest.fixture(scope="module")
def spread(tmp_path_factory):
    folder = tmp_path_factory.mktemp("spread")
    multiprocessing.spawn(
        usage_cases.distributed_steps, (str(folder / "meeting"), str(folder / "steps")), nprocs=2
    )
    return [torch.load(folder / f"steps.{rank}") for rank in (0, 1)]


@pytest.mark.parametrize("name", USAGES)
def test_compiled(name, compiled):
    same(compiled[name], step(build(name), name))


@pytest.mark.parametrize("way", ["ddp", "fsdp2"])
@pytest.mark.parametrize("name", USAGES)
def test_spread_over_two_processes(name, way, spread):
    """Both processes see the same data, so their mean is the plain step."""
    wanted = step(build(name), name)
    for rank in spread:
        same(rank[way][name], wanted)


@pytest.mark.parametrize("name", USAGES)
def test_checkpointed(name):
    module = build(name)
    same(step(module, name, Checkpointed(module)), step(build(name), name))


@pytest.mark.parametrize("name", USAGES)
def test_autocast(name):
    module = build(name).float()
    wanted = step(module, name)
    with torch.autocast("cpu", torch.bfloat16):
        came = step(module, name)
    for key, tensor in wanted.items():
        error = (came[key].float() - tensor).norm() / tensor.norm().clamp_min(1e-3)
        assert error < 0.1, key
        assert key == "out" or came[key].dtype == torch.float32


def test_bites():
    """A step of another module, or of other data, is told apart."""
    wanted = step(build("attention"), "attention")
    other = build("attention")
    with torch.no_grad():
        other.q_proj.weight.mul_(1.01)
    with pytest.raises(AssertionError):
        same(step(other, "attention"), wanted)
    with pytest.raises(AssertionError):
        same({**wanted, "out": wanted["out"] + 1e-6}, wanted)
    with pytest.raises(AssertionError, match="no graph"):
        same("RuntimeError: no graph", wanted)

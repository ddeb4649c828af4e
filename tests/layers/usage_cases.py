"""Each layer and model with one call, for what users do with modules; spawned processes import it.

None imports pytest: a process of its own runs without shape checks, which dynamo cannot trace.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

from layers.cases import drawn, shaken
from ogive import Attention, Decoder, Encoder, GraphAttention, MultiheadAttention
from ogive.layers import Block
from ogive.models import GraphNetwork, Seq2Seq, Translator, VisionTransformer

SITES = "query=rmsnorm(gain=true),gelu weight=sigmoid(bias=-log_n) mixed=gate(sigmoid)"
SOFTMAX = "key=conv(2) weight=softmax output=silu"
PADDING = torch.arange(6) < torch.tensor([[6], [4]])


class Usage(NamedTuple):
    """A module, and its call on (batch 2, length 6), whose last axis a loss can square."""

    build: Callable[[], nn.Module]
    call: Callable[[nn.Module], Tensor]


def _sequence(dtype: torch.dtype) -> Tensor:
    return drawn(2, 6, 24).to(dtype)


def _dtype(module: nn.Module) -> torch.dtype:
    return next(module.parameters()).dtype


def _multihead(module: nn.Module) -> Tensor:
    x = _sequence(_dtype(module))
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    return module(x, x, x, ~PADDING, need_weights=False, attn_mask=mask)[0]


def _layer(module: nn.Module) -> Tensor:
    return module(_sequence(_dtype(module)), key_mask=PADDING, is_causal=True)


def _pair(module: nn.Module) -> Tensor:
    source = torch.arange(12).view(2, 6) % 11
    return module(source, source[:, :4], source_mask=PADDING)


def _images(module: nn.Module) -> Tensor:
    return module(drawn(2, 1, 8, 8).to(_dtype(module)))


def _tokens(module: nn.Module) -> Tensor:
    return module(torch.arange(12).view(2, 6) % 11)


def _graph(module: nn.Module) -> Tensor:
    edge_index = torch.tensor([[0, 1, 1, 4, 5, 2, 3], [1, 0, 1, 2, 2, 2, 0]])
    return module(drawn(6, 24).to(_dtype(module)), edge_index)


USAGES = {
    "attention": Usage(lambda: Attention(24, 4, kv_heads=2, sites=SITES, positions="rope"), _layer),
    "attention_softmax": Usage(lambda: Attention(24, 4, sites=SOFTMAX), _layer),
    "multihead": Usage(
        lambda: MultiheadAttention(24, 4, batch_first=True, sites=SITES), _multihead
    ),
    "graph": Usage(
        lambda: GraphAttention(24, 4, sites="gatv2_2022", self_loops=True, root=True), _graph
    ),
    "graph_network": Usage(lambda: GraphNetwork(24, 5, 24, 2, 4), _graph),
    "block": Usage(lambda: Block(24, 4, sites=SITES, norm="rmsnorm"), _layer),
    "decoder": Usage(lambda: Decoder(11, 24, 2, 4, sites=SITES, positions="rope"), _tokens),
    "encoder": Usage(lambda: Encoder(11, 24, 2, 4, sites=SOFTMAX, max_length=8), _tokens),
    "translator": Usage(lambda: Translator(11, None, 24, 1, 4, sites=SITES), _pair),
    "vision": Usage(lambda: VisionTransformer(3, 24, 1, 4, sites=SITES), _images),
    "seq2seq": Usage(lambda: Seq2Seq(11, 11, 24, sites="score=additive(tanh)"), _pair),
}

# torch.compile traces no recurrent layer of torch's, nor lengths that are read as numbers.
IN_PIECES = ("seq2seq",)


def build(name: str) -> nn.Module:
    return shaken(USAGES[name].build())


def step(module: nn.Module, name: str, run: nn.Module | None = None) -> dict[str, Tensor]:
    """The output of one call and the gradients of its mean square."""
    module.zero_grad()
    out = USAGES[name].call(module if run is None else run)
    (out.float() if out.dtype == torch.bfloat16 else out).square().mean().backward()
    return {"out": out.detach(), **gradients(module)}


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {n: _whole(p.grad) for n, p in module.named_parameters() if p.grad is not None}


def _whole(grad: Tensor) -> Tensor:
    return grad.full_tensor() if hasattr(grad, "full_tensor") else grad  # type: ignore[operator]


class Checkpointed(nn.Module):
    """Runs a module so that its activations are computed again in the backward pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: object, **more: object) -> object:
        return checkpoint(self.module, *args, use_reentrant=False, **more)


def compiled(rank: int, path: str) -> None:
    """Save, for every usage, the step of the module compiled, or the text of its error."""
    torch.set_num_threads(1)
    found: dict[str, object] = {}
    for name in USAGES:
        torch.compiler.reset()
        module = build(name)
        try:
            whole = name not in IN_PIECES
            run = torch.compile(module, fullgraph=whole, backend="aot_eager")
            found[name] = step(module, name, run)
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"
    torch.save(found, path)


def distributed_steps(rank: int, meeting: str, path: str) -> None:
    """Save, for every usage, the step under DDP and under FSDP2 on two processes."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    found: dict[str, dict[str, object]] = {"ddp": {}, "fsdp2": {}}
    for name in USAGES:
        plain = build(name)
        for way, results in found.items():
            module = copy.deepcopy(plain)
            try:
                run = DistributedDataParallel(module) if way == "ddp" else fully_shard(module)
                results[name] = step(module, name, run)
            except Exception as error:
                results[name] = f"{type(error).__name__}: {error}"
    torch.save(found, f"{path}.{rank}")
    distributed.barrier()  # neither rank hangs up while the other still talks
    distributed.destroy_process_group()
    os._exit(0)  # threads of gloo may outlive their group; the interpreter's end would abort on one

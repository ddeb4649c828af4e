"""What spawned processes of the usage tests run; importable by name, without pytest's hooks."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

from layers.cases import HEADS, WIDTH, drawn, shaken
from ogive.layers import Attention, Cache
from ogive.models import Decoder

LENGTHS = (5, 7, 12)


def compile_all(rank: int, cases: list[tuple[str, str | None]], busy: str, path: str) -> None:
    """Save what each job found; jobs are named by their case."""
    torch.set_num_threads(1)
    jobs = {case: partial(compile_model, *case) for case in cases}
    jobs["gradients"] = partial(compile_gradients, busy)
    jobs["decoding"] = partial(compile_decoding, busy)
    torch.save({name: outcome(job) for name, job in jobs.items()}, path)


def outcome(job: Callable[[], object]) -> object:
    """What the job returns, or the text of its error, so that one failure leaves the others."""
    torch.compiler.reset()
    try:
        return job()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def compile_model(sites: str, positions: str | None) -> tuple[int, float]:
    """How many graphs all lengths took, and the largest error."""
    options = {"sites": sites, "positions": positions, "kv_heads": 2, "max_length": 64}
    model = shaken(Decoder(20, WIDTH, 1, HEADS, **options))
    graphs, errors = [], []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph

    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend=counting)
    for length in LENGTHS:
        tokens = torch.randint(20, (2, length))
        errors.append((compiled(tokens) - model(tokens)).abs().max().item())
    return len(graphs), max(errors)


def compile_gradients(sites: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
    layer, twin = (shaken(Attention(WIDTH, HEADS, sites=sites, positions="rope")) for _ in "ab")
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    for run in (compiled, twin):
        run(drawn(2, 6, WIDTH), key_mask=mask, is_causal=True).square().sum().backward()
    return [(a.grad, b.grad) for a, b in zip(layer.parameters(), twin.parameters(), strict=True)]


def compile_decoding(sites: str) -> tuple[torch.Tensor, torch.Tensor]:
    layer = shaken(Attention(WIDTH, HEADS, sites=sites, positions="rope")).requires_grad_(False)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="eager")
    x, cache = drawn(1, 8, WIDTH), Cache()
    outs = [compiled(piece, is_causal=True, cache=cache) for piece in x.split((3, 1, 1, 1, 2), 1)]
    return torch.cat(outs, 1), layer(x, is_causal=True)


def model() -> Decoder:
    sites = "query=conv(2),rmsnorm(gain=true) weight=sink mixed=gate(sigmoid)"
    return shaken(Decoder(11, 16, 1, 4, sites=sites, positions="relative"))


def tokens(rank: int) -> torch.Tensor:
    return torch.randint(11, (2, 6), generator=torch.Generator().manual_seed(rank))


def gradients(rank: int, meeting: str, path: str) -> None:
    """Save the gradients that DDP leaves on this rank, of a mean over this rank's tokens."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    wrapped = DistributedDataParallel(model())
    wrapped(tokens(rank)).square().mean().backward()
    torch.save({n: p.grad for n, p in wrapped.module.named_parameters()}, f"{path}.{rank}")
    distributed.barrier()  # neither rank hangs up while the other still talks
    del wrapped
    distributed.destroy_process_group()
    os._exit(0)  # threads of gloo may outlive their group; the interpreter's end would abort on one

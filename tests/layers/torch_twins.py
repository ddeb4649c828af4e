"""Random calls of torch.nn.MultiheadAttention, and the same calls of Ogive's."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ogive.layers import MultiheadAttention

HEADS = 4
WIDTH = 12


@dataclass
class Case:
    """One layer and one call: constructor options, sizes, masks and flags."""

    seed: int
    options: dict[str, Any]
    batch: int | None
    queries: int
    keys: int
    same: bool
    padding: str | None
    mask: str | None
    call: dict[str, bool] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"case {self.seed}: {vars(self)}"


def case(seed: int) -> Case:
    """The options of one seed; every option of the constructor and the call is drawn."""
    pick = random.Random(seed)
    flip = lambda chance=0.5: pick.random() < chance  # noqa: E731
    options: dict[str, Any] = {
        name: flip() for name in ("bias", "add_bias_kv", "add_zero_attn", "batch_first")
    }
    if flip(0.4):
        options.update(kdim=pick.choice((5, WIDTH)), vdim=pick.choice((7, WIDTH)))
    mine = options.get("kdim", WIDTH) == options.get("vdim", WIDTH) == WIDTH
    same = mine and flip()
    queries = pick.randint(1, 6)
    batch = pick.choice((None, 1, 2, 3))
    mask = pick.choice((None, "bool", "float", "bool3", "float3", "causal", "hint"))
    call = {"need_weights": flip(), "average_attn_weights": flip()}
    if mask == "hint":
        mask, call["is_causal"] = "causal", True
    padding = pick.choice((None, "bool", "float"))
    if padding and mask and ("float" in mask) != (padding == "float"):
        padding = None  # PyTorch warns of mixed kinds as deprecated
    return Case(
        seed,
        options,
        batch,
        queries,
        queries if same else pick.randint(1, 6),
        same,
        padding,
        mask,
        call,
    )


def twins(case: Case, dtype: torch.dtype, **ours: Any) -> tuple[nn.Module, nn.Module]:
    """PyTorch's layer and Ogive's with the same parameters, none of them at a special start."""
    torch.manual_seed(case.seed)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, dtype=torch.float64, **case.options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
            parameter.copy_(parameter.float())
    mine = MultiheadAttention(WIDTH, HEADS, dtype=dtype, **case.options, **ours)
    mine.load_state_dict(theirs.state_dict(), strict=True)
    return theirs.to(dtype), mine


def inputs(case: Case, dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Tensor]]:
    """query, key, value (one tensor three times in self-attention), and the masks."""
    generator = torch.Generator().manual_seed(case.seed)

    def draw(length: int, width: int) -> Tensor:
        shape = (length, width) if case.batch is None else (case.batch, length, width)
        drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
        if case.batch is not None and not case.options["batch_first"]:
            drawn = drawn.transpose(0, 1)
        return drawn.float().to(dtype).requires_grad_()  # exact in both precisions

    query = draw(case.queries, WIDTH)
    rest = [draw(case.keys, case.options.get(name, WIDTH)) for name in ("kdim", "vdim")]
    sequences = [query] * 3 if case.same else [query, *rest]
    return sequences, masks(case, dtype, generator)


def masks(case: Case, dtype: torch.dtype, generator: torch.Generator) -> dict[str, Tensor]:
    """Masks that leave every row a key to see: PyTorch has no number for the others."""
    made: dict[str, Tensor] = {}
    batch = case.batch or 1
    if case.padding:
        hidden = torch.rand(batch, case.keys, generator=generator) < 0.4
        hidden[:, 0] = False
        hidden = hidden if case.batch is not None else hidden[0]
        made["key_padding_mask"] = _as(case.padding, hidden, dtype, generator)
    if case.mask:
        shape = (case.queries, case.keys)
        if "3" in case.mask:
            shape = (batch * HEADS, *shape)
        hidden = torch.rand(shape, generator=generator) < 0.4
        if case.mask == "causal":
            hidden = torch.ones(shape, dtype=torch.bool).triu(1)
        hidden[..., 0] = False
        made["attn_mask"] = _as(case.mask, hidden, dtype, generator)
    return made


def _as(kind: str, hidden: Tensor, dtype: torch.dtype, generator: torch.Generator) -> Tensor:
    if "float" not in kind:
        return hidden
    added = torch.randn(hidden.shape, generator=generator, dtype=torch.float64)
    return added.float().to(dtype).masked_fill(hidden, -torch.inf).requires_grad_()


def sensitivity(case: Case, truth: dict[str, Tensor], draws: int = 3) -> dict[str, float]:
    """How far each tensor moves when all that comes in is off by one unit of float32."""
    moved = dict.fromkeys(truth, 0.0)
    for draw in range(draws):
        layer, _ = twins(case, torch.float64)
        generator = torch.Generator().manual_seed(draw)
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.mul_(_almost_one(parameter, generator))
        for name, tensor in outcome(layer, case, torch.float64, generator).items():
            moved[name] = max(moved[name], gap(tensor, truth[name]))
    return moved


def gap(ours: Tensor, truth: Tensor) -> float:
    """The largest difference between two tensors."""
    return (ours.double() - truth).abs().max().item() if truth.numel() else 0.0


def _almost_one(like: Tensor, generator: torch.Generator) -> Tensor:
    signs = torch.randint(0, 2, like.shape, generator=generator) * 2 - 1
    return 1 + signs * torch.finfo(torch.float32).eps


def outcome(
    layer: nn.Module, case: Case, dtype: torch.dtype, noise: torch.Generator | None = None
) -> dict[str, Tensor]:
    """Output, weights and every gradient; noise puts inputs and slopes off by one unit."""
    sequences, mask = inputs(case, dtype)
    if noise is not None:
        with torch.no_grad():
            for tensor in sequences[:1] if case.same else sequences:
                tensor.mul_(_almost_one(tensor, noise))
    out, weights = layer(*sequences, **mask, **case.call)
    found = {"out": out} if weights is None else {"out": out, "weights": weights}
    generator = torch.Generator().manual_seed(case.seed + 1)
    loss = torch.zeros((), dtype=torch.float64)
    for tensor in found.values():
        slope = torch.randn(tensor.shape, generator=generator).double()
        loss = (
            loss + (tensor * (slope if noise is None else slope * _almost_one(slope, noise))).sum()
        )
    leaves = {f"input {i}": t for i, t in enumerate(sequences) if i == 0 or not case.same}
    leaves |= {name: t for name, t in mask.items() if t.requires_grad}
    leaves |= dict(layer.named_parameters())
    grads = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    # A hint that takes a mask's place leaves it unused.
    pairs = zip(leaves.items(), grads, strict=True)
    found |= {name: torch.zeros_like(t) if g is None else g for (name, t), g in pairs}
    return {name: t.detach() for name, t in found.items()}

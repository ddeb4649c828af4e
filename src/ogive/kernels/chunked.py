"""The definition, a block of the work at a time: any score and weight, memory linear in length.

Each block is computed by the reference and computed again in the backward pass, so no more than one
block's (batch, heads, queries, keys) tensors exist at a time. Outputs and gradients are written
into room that was there before: what a block leaves behind keeps an allocator from using its
memory again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from ogive.errors import ImplUnavailable
from ogive.kernels import blocks, finite
from ogive.kernels.auxiliary import Aux
from ogive.kernels.blocks import Block, blocks_of, part_of, row_size, rows_of
from ogive.kernels.call import Call
from ogive.kernels.entrance import hooked
from ogive.kernels.reference import reference

_OWN = 4
"""Inputs that blocks share out: query, key, value, bias."""
_HELD = 6
"""With what must not change until gradients are taken, mask and offset. Parts' own follow."""


def lacks(call: Call) -> str | None:
    """Why blocks cannot run this call, or None where they can."""
    if call.aux is not None and (call.aux.weights or call.aux.weights_rows is not None):
        return "it does not return weights, which it never holds at once"
    if call.query.device.type not in ("cpu", "meta"):
        return f"what a part draws on {call.query.device} cannot be drawn again for gradients"
    if torch.compiler.is_compiling() or finite.transforming():
        return "torch.compile and torch.func transforms need the definition in one piece"
    return None


def worthwhile(call: Call) -> bool:
    """Whether "auto" takes this way: where the definition's tensors would be large.

    Not where hooks of the parts want to see whole tensors, nor where there are no numbers.
    """
    if torch.compiler.is_compiling():
        return False  # and sizes, which are symbols there, decide nothing
    most, numbers = blocks.UNCUT * blocks.BUDGET, call.query.numel() * call.key.shape[-2]
    if numbers <= most:  # features counted, which few scores make: asked first, for small calls
        return False
    small = call.query.shape[0] * call.query.shape[2] * row_size(call) <= most
    return not (small or hooked(call.score, call.weight) or call.query.is_meta)


def chunked(call: Call) -> tuple[Tensor, Aux | None]:
    """The reference's numbers, block by block."""
    if len(blocks_of(call)) < 2:
        return reference(call)
    if torch.is_grad_enabled():
        tensors, learned = _held(call), _learned(call)
        if learned or any(t is not None and t.requires_grad for t in tensors):
            return _aux_of(call, _Blocks.apply(_bare(call), *tensors, *learned))
    return _aux_of(call, _forward(call)[0])


class _Blocks(torch.autograd.Function):
    """Autograd of all blocks; inputs: the call, its tensors, then leaves that its parts hold."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor | None) -> tuple[Tensor, ...]:
        """The output (b, h, i, v) and what else was asked for."""
        made, ctx.states = _forward(_dressed(call, tensors))
        ctx.save_for_backward(*tensors)
        ctx.call = call
        ctx.set_materialize_grads(False)
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients, from blocks computed again; through the whole definition where graphed."""
        call, learned = _dressed(ctx.call, ctx.saved_tensors), ctx.saved_tensors[_HELD:]
        needs = ctx.needs_input_grad[1:]
        if not torch.is_grad_enabled():
            return (None, *_backward(call, learned, needs, grads, ctx.states))
        if ctx.states:
            raise ImplUnavailable(
                "impl='chunked' has no second derivatives of a part that draws random numbers"
            )
        with torch.enable_grad():
            made = _answers(reference(call))
        return (None, *_gradients(made, grads, ctx.saved_tensors, needs, graph=True))


def _forward(call: Call) -> tuple[list[Tensor], dict[int, Tensor]]:
    """What was asked for, and the generator's state before each block that drew from it."""
    made: list[Tensor] = []
    states: dict[int, Tensor] = {}
    for at, block in enumerate(blocks_of(call)):
        before = torch.get_rng_state()
        pieces = _answers(reference(part_of(call, block)))
        if not torch.equal(before, torch.get_rng_state()):
            states[at] = before
        if not made:
            made = [_room(call, piece) for piece in pieces]
        for whole, piece in zip(made, pieces, strict=True):
            whole[block[0], :, block[1]].copy_(piece)
    return made, states


def _backward(
    call: Call,
    learned: tuple[Tensor, ...],
    needs: tuple[bool, ...],
    grads: tuple[Tensor | None, ...],
    states: dict[int, Tensor],
) -> list[Tensor | None]:
    """Gradients of the call's tensors and of what its parts hold, summed block by block."""
    inputs = (*_held(call), *learned)
    sums = [_zeros(t) if need else None for t, need in zip(inputs, needs, strict=True)]
    for at, block in enumerate(blocks_of(call)):
        part, leaves = _with_leaves(part_of(call, block), needs)
        with torch.random.fork_rng(devices=[], enabled=at in states), torch.enable_grad():
            if at in states:
                torch.set_rng_state(states[at])
            made = _answers(reference(part))
        _check_known(made, (*leaves, *learned))
        wanted = [None if g is None else g[block[0], :, block[1]] for g in grads]
        found = _gradients(made, wanted, (*leaves, None, None, *learned), needs)
        for place, more in enumerate(found):
            if more is not None:
                _share(sums[place], place, block).add_(more)  # type: ignore[arg-type]
    return [
        None if total is None or tensor is None else total.to(tensor.dtype)
        for total, tensor in zip(sums, inputs, strict=True)
    ]


def _share(total: Tensor, place: int, block: Block) -> Tensor:
    """The part of an input's gradient that a block adds to."""
    if place == 0:
        return total[block[0], :, block[1]]
    if place < _OWN - 1:
        return total[block[0]]
    return rows_of(total, block) if place == _OWN - 1 else total


def _gradients(
    made: list[Tensor],
    grads: Iterable[Tensor | None],
    inputs: tuple[Tensor | None, ...],
    needs: tuple[bool, ...],
    *,
    graph: bool = False,
) -> list[Tensor | None]:
    """Gradients of the inputs that need them; None for others and for those that nothing met."""
    wanted = [t for t, need in zip(inputs, needs, strict=True) if need]
    pairs = [(m, g) for m, g in zip(made, grads, strict=True) if g is not None and m.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    outs, into = [m for m, _ in pairs], [g.to(m.dtype) for m, g in pairs]
    found = iter(
        torch.autograd.grad(
            outs,
            wanted,  # type: ignore[arg-type]
            into,
            allow_unused=True,
            create_graph=graph,
            retain_graph=True,
        )
    )
    return [next(found) if need else None for need in needs]


def _with_leaves(part: Call, needs: tuple[bool, ...]) -> tuple[Call, list[Tensor | None]]:
    """A block's call on tensors without a past, wide enough to sum gradients in."""
    leaves: list[Tensor | None] = []
    for tensor, need in zip((part.query, part.key, part.value, part.bias), needs, strict=False):
        leaf = None if tensor is None else tensor.detach().to(_wide(tensor))
        leaves.append(leaf.requires_grad_(need) if leaf is not None else None)
    return _dressed(part, leaves), leaves


def _learned(call: Call) -> list[Tensor]:
    """Leaves that need gradients and that parts bring: parameters, or whatever else they hold.

    They are found in the graph of one query's answer.
    """
    if not all(call.query.shape):
        return []
    needs = tuple(t is not None and t.is_floating_point() for t in (call.query,) * _OWN)
    part, leaves = _with_leaves(part_of(call, (slice(0, 1), slice(0, 1))), needs)
    with torch.random.fork_rng(devices=[]):
        return _reached(_answers(reference(part)), leaves)


def _reached(made: list[Tensor], known: Iterable[Tensor | None]) -> list[Tensor]:
    """Leaves of the graph of `made` that are not known."""
    ours, found, seen = {id(t) for t in known}, {}, set()
    stack = [m.grad_fn for m in made]
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None and id(leaf) not in ours:
            found[id(leaf)] = leaf
        stack += [before for before, _ in node.next_functions]
    return list(found.values())


def _check_known(made: list[Tensor], known: tuple[Tensor | None, ...]) -> None:
    if _reached(made, known):
        raise ImplUnavailable(
            "impl='chunked' cannot tell which tensors a part learns: some of them take part in "
            "some rows alone; make them parameters of the part, or write impl='reference'"
        )


def _answers(answer: tuple[Tensor, Aux | None]) -> list[Tensor]:
    """The output and the statistics that were asked for, in order."""
    out, aux = answer
    return [out, *[t for t in aux or () if t is not None]]


def _aux_of(call: Call, made: Iterable[Tensor]) -> tuple[Tensor, Aux | None]:
    """`_answers` turned back."""
    out, *rest = made
    if call.aux is None:
        return out, None
    named = dict(zip(_asked(call), rest, strict=True))
    return out, Aux(**named)


def _asked(call: Call) -> list[str]:
    return [name for name in Aux._fields if getattr(call.aux, name) not in (False, None)]


def _room(call: Call, piece: Tensor) -> Tensor:
    """Room for what the pieces make together: (b, h, i) or (b, h, i, …)."""
    batch, heads, queries, _ = call.query.shape
    return piece.new_empty((batch, heads, queries, *piece.shape[3:]))


def _held(call: Call) -> tuple[Tensor | None, ...]:
    offset = call.visibility.offset
    mask_and_offset = (call.visibility.mask, offset if isinstance(offset, Tensor) else None)
    return (call.query, call.key, call.value, call.bias, *mask_and_offset)


def _bare(call: Call) -> Call:
    """The call without its tensors, which autograd keeps."""
    none = call.query.new_empty(0)
    return replace(call, query=none, key=none, value=none, bias=None)


def _dressed(call: Call, tensors: Sequence[Tensor | None]) -> Call:
    """The call with these tensors: as many as blocks share out, or all that are held."""
    query, key, value = cast("tuple[Tensor, Tensor, Tensor]", tensors[:3])
    seen = call.visibility
    if len(tensors) >= _HELD:
        mask, offset = tensors[_OWN:_HELD]
        seen = replace(seen, mask=mask, offset=seen.offset if offset is None else offset)
    return replace(call, query=query, key=key, value=value, bias=tensors[3], visibility=seen)


def _zeros(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return torch.zeros(tensor.shape, dtype=_wide(tensor), device=tensor.device)


def _wide(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.dtype, torch.float32)

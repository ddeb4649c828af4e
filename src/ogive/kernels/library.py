"""The dense operation as torch operators, and their autograd.

Registered with `torch.library` (define and impl, with fakes) and wrapped in an
`autograd.Function`: torch.compile sees one opaque call, and a second derivative goes through the
definition instead of being silently wrong.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ogive.kernels import dense, finite
from ogive.kernels.dense import Dense, Given
from ogive.kernels.graphed import graphed, laid_out, told_apart

_LIBRARY = torch.library.Library("ogive", "DEF")
_INPUTS = (
    "Tensor query, Tensor key, Tensor value, Tensor? constant, Tensor? bias, Tensor? vectors, "
    "Tensor? parameter, Tensor? keep, Tensor? offsets, Tensor? seed, str score, "
    "str curve, str act, float act_constant, float scale, float cap, float dropout, "
    "SymInt left, SymInt right"
)
_TENSORS = 10
_GRADED = len(dense.GRADED)
_GIVEN = 5
"""What `dense_backward` takes before the inputs."""
_LIBRARY.define(f"dense({_INPUTS}) -> (Tensor, Tensor)")
_LIBRARY.define(
    "dense_backward(Tensor grad_out, Tensor? grad_lse, Tensor out, Tensor lse, bool[] needs, "
    f"{_INPUTS}) "
    f"-> ({', '.join(['Tensor'] * _GRADED)})"
)


def _forward(*inputs: Any) -> tuple[Tensor, Tensor]:
    return dense.forward(Dense(*inputs))


def backward(
    grad_out: Tensor,
    grad_lse: Tensor | None,
    out: Tensor,
    lse: Tensor,
    needs: list[bool],
    *inputs: Any,
) -> tuple[Tensor, ...]:
    """What the operator `dense_backward` runs."""
    return dense.backward(Dense(*inputs), grad_out, grad_lse, out, lse, tuple(needs))


def _forward_shapes(*inputs: Any) -> tuple[Tensor, Tensor]:
    call = Dense(*inputs)
    rows = call.query.shape[:3]
    sharing = rows if call.curve in dense.SHARING else (0,)
    lse = call.query.new_empty(sharing, dtype=dense.wide_dtype(call))
    return call.query.new_empty((*rows, call.value.shape[-1])), lse


def _backward(*given: Any) -> tuple[Tensor, ...]:
    """`backward` with gradients that lie as their inputs do, which a graph was told."""
    found, inputs = backward(*given), given[_GIVEN:]
    laid = (laid_out(g, t) for g, t in zip(found[:3], inputs[:3], strict=True))
    return (*laid, *found[3:])


def _like(name: str, tensor: Tensor) -> Tensor:
    if name in ("query", "key", "value"):
        return torch.empty_like(tensor)
    return tensor.new_empty(tensor.shape)


def _backward_shapes(*given: Any) -> tuple[Tensor, ...]:
    call, needs = Dense(*given[_GIVEN:]), given[_GIVEN - 1]
    also = {n for n in ("vectors", "parameter") if getattr(call, n) is not None}
    always = {"query", "key", "value"} | also
    made = []
    for name, need in zip(dense.GRADED, needs, strict=True):
        wanted = need or name in always
        made.append(_like(name, getattr(call, name)) if wanted else call.query.new_empty(0))
    return tuple(made)


_LIBRARY.impl("dense", _forward, "CPU")
_LIBRARY.impl("dense_backward", _backward, "CPU")
torch.library.register_fake("ogive::dense", _forward_shapes, lib=_LIBRARY)
torch.library.register_fake("ogive::dense_backward", _backward_shapes, lib=_LIBRARY)


class DenseFunction(torch.autograd.Function):
    """Autograd of the dense operation; inputs as in `Dense`, in order."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        """The output (b, h, i, v)."""
        return _run(ctx, inputs)[0]

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the inputs that need them; through the definition where graphed."""
        return _derive(ctx, grad_out, None)


class DenseLseFunction(torch.autograd.Function):
    """The same of a call that gives each row's log Σ exp(score) as well (`dense.gives_lse`)."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor]:
        """The output (b, h, i, v) and lse (b, h, i)."""
        return _run(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, grad_out: Tensor, grad_lse: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        """Gradients of the inputs that need them; through the definition where graphed."""
        return _derive(ctx, grad_out, grad_lse)


def _run(ctx: Any, inputs: tuple[Any, ...]) -> tuple[Tensor, Tensor]:
    run = _forward if direct(*inputs[:_TENSORS]) else torch.ops.ogive.dense
    out, lse = run(*inputs)
    ctx.save_for_backward(*inputs[:_TENSORS], out, lse)
    ctx.numbers = inputs[_TENSORS:]
    return out, lse


def _derive(ctx: Any, grad_out: Tensor, grad_lse: Tensor | None) -> tuple[Tensor | None, ...]:
    *tensors, out, lse = ctx.saved_tensors
    needs = list(ctx.needs_input_grad[:_GRADED])
    if torch.is_grad_enabled():
        call = Dense(*tensors, *ctx.numbers)
        with torch.enable_grad():
            made, into = dense.definitions(call, Given(grad_out, grad_lse, out, lse))
        # lse does without the values
        grads = graphed(made, tensors, needs, into, unused_are_zero=grad_lse is not None)
    else:
        alone = direct(grad_out, grad_lse, *tensors) and lone(grad_out)
        alone = alone and (grad_lse is None or lone(grad_lse))
        run = backward if alone else torch.ops.ogive.dense_backward
        grads = run(grad_out, grad_lse, out, lse, needs, *tensors, *ctx.numbers)
    wanted = [grad if need else None for grad, need in zip(grads, needs, strict=True)]
    return (*wanted, *[None] * (len(tensors) + len(ctx.numbers) - _GRADED))


def direct(*tensors: Tensor | None) -> bool:
    """Whether the kernels may be called without torch's dispatcher: plain tensors, nothing traced.

    The dispatcher costs more than a small call computes. Tensors of other classes, modes that
    watch operators, transforms, torch.compile, lazily negated or nested tensors and zeros
    that are held nowhere need it.
    """
    if torch.compiler.is_compiling() or finite.transforming() or _watched():
        return False
    for tensor in tensors:  # a generator, or a function of its own, costs as much as the rest
        if tensor is None:
            continue
        if type(tensor) not in _PLAIN or tensor.is_neg() or tensor.is_nested:
            return False
        if tensor._is_zerotensor():
            return False
    return True


_PLAIN = (Tensor, torch.nn.Parameter)
# Private names, as in `finite.transforming`: where one is gone, the dispatcher is used.
try:
    _modes = torch._C._len_torch_dispatch_stack
    _function_modes = torch._C._is_torch_function_mode_enabled
    _profiled = torch._C._autograd._profiler_enabled  # type: ignore[attr-defined]
    _traced = torch._C._is_tracing
except AttributeError:

    def _watched() -> bool:
        return True
else:

    def _watched() -> bool:
        """Whether anything wants to see operators: modes, the profiler, torch.jit.trace."""
        return bool(_modes() or _function_modes() or _profiled() or _traced())


def lone(grad_out: Tensor) -> bool:
    """Whether a gradient is one and not a batch of them, as autograd's is_grads_batched makes."""
    try:
        return not torch._C._functorch.is_legacy_batchedtensor(grad_out)  # type: ignore[attr-defined]
    except AttributeError:
        return False


def apply(call: Dense) -> Tensor:
    """The output of the dense operation, differentiable."""
    if _unrecorded(call):
        return dense.forward(call)[0]
    return DenseFunction.apply(*_told(call))  # type: ignore[return-value]


def apply_with_lse(call: Dense) -> tuple[Tensor, Tensor]:
    """The same of a call that gives lse, and that: (b, h, i), in float32 for halves."""
    if _unrecorded(call):
        return dense.forward(call)
    return DenseLseFunction.apply(*_told(call))  # type: ignore[return-value]


def _unrecorded(call: Dense) -> bool:
    """Whether a call needs neither torch's dispatcher nor autograd."""
    tensors = tuple(vars(call).values())[:_TENSORS]
    if not direct(*tensors):
        return False
    if torch.is_grad_enabled():
        for tensor in tensors:
            if tensor is not None and tensor.requires_grad:
                return False
    return True


def _told(call: Dense) -> tuple[Any, ...]:
    inputs = tuple(vars(call).values())
    return (*told_apart(*inputs[:3]), *inputs[3:])

"""One forward pass of a model of transformers: who attends through the interface, and who does not?

A model may ask for its attention in some modules and compute it by itself in others (the encoder of
LongT5), and what such a module computes is the same with softmax. So it is the modules that are
watched, not the outputs alone: one that holds projections, took a softmax of its own and never
called the interface would ignore whatever is registered there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ogive.errors import ArgumentError, ImplUnavailable
from ogive.integrations.huggingface_attention import AttentionFunction
from ogive.parts.part import Sizes

SOFTMAXES = frozenset(
    [
        "softmax",
        "scaled_dot_product_attention",
        "multi_head_attention_forward",
        "_native_multi_head_attention",
        "_transformer_encoder_layer_fwd",
    ]
)
"""Functions of torch that end in a softmax over keys, or are one."""

PROJECTION = re.compile(
    r"(w|to_)?_?(q|k|v|kv|qkv|query|key|value|query_key_value|c_attn|in_proj)(_|$)", re.IGNORECASE
)
"""What attention modules call their projections of queries, keys and values."""


def tried(
    model: nn.Module, function: AttentionFunction, inputs: dict[str, Tensor]
) -> tuple[dict[nn.Module, Sizes], list[str], Any]:
    """One forward pass with a registered function.

    Returns:
        The modules that attended by it, with their sizes; the names of those that attended by
        themselves; the output.
    """
    model.set_attn_implementation(function.name)  # type: ignore[operator]
    with function.recording() as seen, _watching(model) as own:
        output = run(model, inputs)
    asked = [name for name, module in model.named_modules() if module in seen]
    related = [n for n in own if any(_within(n, a) or _within(a, n) for a in asked)]
    return seen, [name for name in own if name not in related], output


def refuse_own_softmax(model: nn.Module, names: list[str]) -> None:
    """Raise if modules of a model attend by themselves."""
    if not names:
        return
    kinds = sorted({type(model.get_submodule(name)).__name__ for name in names})
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    raise ImplUnavailable(
        f"{type(model).__name__} asks transformers' AttentionInterface in some of its modules "
        f"alone: {', '.join(names[:3])}{more} ({', '.join(kinds)}) took a softmax without it, and "
        "would keep it (pass verify=False to change the others all the same)"
    )


def compare(model: nn.Module, output: Any, inputs: dict[str, Tensor]) -> None:
    """Raise unless softmax through the interface is what the model computes by itself."""
    model.set_attn_implementation("eager")  # type: ignore[operator]
    wanted, came = (_first(out) for out in (run(model, inputs), output))
    allowed = 1e3 * torch.finfo(wanted.dtype).eps * wanted.abs().max().clamp_min(1).item()
    gap = (wanted - came).abs().max().item()
    if not gap <= allowed:
        raise ImplUnavailable(
            f"{type(model).__name__} does more in its own attention than it passes to the "
            f"interface: with softmax its outputs differ by {gap:.2g} (pass verify=False to use "
            "it all the same)"
        )


def dummies(model: Any) -> dict[str, Tensor]:
    """The model's own dummy inputs, without masks: rows that see nothing may rightly differ."""
    given: dict[str, Tensor] = dict(model.dummy_inputs)
    main = model.main_input_name
    if main in given:
        return {name: tensor for name, tensor in given.items() if "mask" not in name}
    size, channels = (getattr(model.config, n, None) for n in ("image_size", "num_channels"))
    if main != "pixel_values" or size is None or channels is None:
        raise ArgumentError(
            f"{type(model).__name__} takes {main!r}, and its dummy_inputs hold {list(given)}: pass "
            f"inputs={{{main!r}: …}}, the arguments of a small forward pass"
        )
    height, width = (size, size) if isinstance(size, int) else size
    noise = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(0))
    return {main: noise.to(model.dtype)}


def run(model: nn.Module, inputs: dict[str, Tensor]) -> Any:
    """A forward pass in evaluation, without gradients, where the model is."""
    device = next(model.parameters()).device
    with _evaluating(model), torch.no_grad():
        return model(**{name: tensor.to(device) for name, tensor in inputs.items()})


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, was in training.items():
            module.training = was


@contextmanager
def _watching(model: nn.Module) -> Iterator[list[str]]:
    """Collect the names of the modules with projections that take a softmax, or have it taken."""
    running: list[str] = []
    found: list[str] = []
    hooks = []
    for name, module in model.named_modules():
        if _projects(module):
            hooks.append(module.register_forward_pre_hook(_entering(running, name)))
            leaving = _leaving(running)
            hooks.append(module.register_forward_hook(leaving, always_call=True))
    try:
        with _Softmaxes(running, found):
            yield found
    finally:
        for hook in hooks:
            hook.remove()


class _Softmaxes(TorchFunctionMode):
    """Notes in which module a softmax is taken, the innermost of those that run."""

    def __init__(self, running: list[str], found: list[str]) -> None:
        super().__init__()
        self.running = running
        self.found = found

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        named = getattr(func, "__name__", "")
        if named in SOFTMAXES and self.running and self.running[-1] not in self.found:
            self.found.append(self.running[-1])
        return func(*args, **(kwargs or {}))


def _projects(module: nn.Module) -> bool:
    held = [name for name, _ in module.named_children()]
    held += [name for name, _ in module.named_parameters(recurse=False)]
    return any(PROJECTION.match(name) for name in held)


def _entering(running: list[str], name: str) -> Callable[..., None]:
    return lambda module, args: running.append(name)


def _leaving(running: list[str]) -> Callable[..., None]:
    def leave(module: nn.Module, args: Any, output: Any) -> None:
        running.pop()

    return leave


def _within(name: str, other: str) -> bool:
    return name == other or not other or name.startswith(other + ".")


def _first(output: Any) -> Tensor:
    """The first floating-point tensor of a model's output."""
    values = output.values() if hasattr(output, "values") else output
    return next(v for v in values if isinstance(v, Tensor) and v.is_floating_point()).float()

"""Pairing: every parameter starts from hash(seed, its name), so variants share what they share.

With one global stream, a variant that draws one number more starts with other weights everywhere
after it, and the difference between two variants is buried under two unrelated starts. Here a
parameter of the same name, shape and initialiser starts bit for bit the same in every variant.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ogive.errors import StudyError
from ogive.lab.keys import key, stream


def initialise(model: nn.Module, seed: int) -> frozenset[str]:
    """Start a model's parameters anew, each from its own stream, in place.

    Each module's own `reset_parameters` runs again, children before parents, so distributions
    and declared starts (gain 1, logit 0) stay the module's own; only where the random numbers
    come from changes: whatever fills a parameter draws from the stream (seed, parameter name).
    The order in which modules were built, and what else the model holds, do not matter. The
    caller's global random state is left as it was.

    Args:
        model: on the CPU, in floating point.
        seed: of the trial.

    Returns:
        The names of the parameters that were filled at random (the others start at a constant).

    Raises:
        StudyError: a module owns a parameter that no `reset_parameters` starts.
    """
    names = {_storage(p): name for name, p in model.named_parameters() if p.numel()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
        streams = _OwnStreams(seed, names)
        for name, module in reversed(list(model.named_modules())):
            reset = getattr(module, "reset_parameters", None)
            if callable(reset):
                torch.default_generator.manual_seed(key("module", seed, name))
                with streams:
                    reset()
    for name, parameter in model.named_parameters():
        if parameter.isnan().any():
            raise StudyError(
                f"parameter {name} has no start that pairing can repeat: give the module that "
                "owns it a reset_parameters() which fills it"
            )
    return frozenset(streams.drawn)


class _OwnStreams(TorchDispatchMode):
    """Under it, a random fill of a parameter (or a view of one) draws from its own stream.

    Random numbers that fill something else (the scratch of an orthogonal start) come from the
    global stream, which `initialise` keys by the module's name.
    """

    def __init__(self, seed: int, names: dict[int, str]) -> None:
        super().__init__()
        self.seed, self.names = seed, names
        self.drawn: dict[str, torch.Generator] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = self._filled(args)
        if name and any(a.name == "generator" for a in func._schema.arguments):
            if name not in self.drawn:
                self.drawn[name] = stream("parameter", self.seed, name)
            kwargs["generator"] = self.drawn[name]
        return func(*args, **kwargs)

    def _filled(self, args: tuple) -> str | None:
        return self.names.get(_storage(args[0])) if args and isinstance(args[0], Tensor) else None


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()

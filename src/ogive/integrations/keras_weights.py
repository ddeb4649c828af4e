"""Keras' variables by their paths, checked and made tensors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ogive.errors import ArgumentError, ArgumentTypeError

RANDOM = "seed_generator_state"
"""What Keras calls the state of a generator of random numbers, which says nothing of the layer."""


def tensors_by_path(weights: object, words: int) -> dict[str, Tensor]:
    """A layer's weights as tensors by the last words of their paths, without random-number state.

    Args:
        weights: arrays or tensors by path.
        words: how many of a path's last words tell the weights of a layer apart.

    Raises:
        ArgumentTypeError: not a mapping, or not of arrays of floating-point numbers.
        ArgumentError: two paths that end alike, as those of two layers do.
    """
    if not isinstance(weights, Mapping):
        raise ArgumentTypeError(
            f"weights takes arrays by the paths of Keras' variables, not {type(weights).__name__}: "
            "{v.path: v.numpy() for v in layer.variables}"
        )
    paths: dict[str, Any] = {}
    for path in weights:
        name = "/".join(str(path).split("/")[-words:])
        if name.split("/")[-1] == RANDOM:
            continue
        if name in paths:
            raise ArgumentError(
                f"weights hold {name!r} twice, as {paths[name]!r} and {path!r}: pass those of one "
                "layer"
            )
        paths[name] = path
    return {name: _tensor(path, weights[path]) for name, path in paths.items()}


def _tensor(path: object, array: Any) -> Tensor:
    try:
        tensor = torch.as_tensor(array)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentTypeError(
            f"the weight {path!r} takes an array of floating-point numbers, not "
            f"{type(array).__name__} ({error})"
        ) from None
    if not tensor.is_floating_point():
        raise ArgumentTypeError(
            f"the weight {path!r} takes floating-point numbers, not {tensor.dtype}"
        )
    return tensor

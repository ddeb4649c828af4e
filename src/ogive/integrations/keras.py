"""Keras' MultiHeadAttention and AdditiveAttention ↔ ogive.Attention, from configs and arrays.

Keras itself is not needed: `layer.get_config()` is a dictionary and weights are arrays. Collect
them where Keras runs, by each variable's path:

    weights = {v.path: v.numpy() for v in layer.variables}

Of a path the last words count (`query/kernel`, …; for AdditiveAttention the single `scale`), so
that a layer's name and its model's may stand before them or not. The state of a generator of random
numbers, which layers with dropout hold, is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.integrations.keras_weights import tensors_by_path
from ogive.integrations.state_dicts import Bridge, Heads, Row, loaded
from ogive.layers import Attention
from ogive.layers.checks import whole
from ogive.parts.sites import Sites

Weights = Mapping[str, Any]


def _read_in(heads: Heads, kernel: Tensor) -> Tensor:
    """(width, heads, head width) → (heads · head width, width)."""
    return kernel.flatten(1).T


def _write_query(heads: Heads, weight: Tensor) -> Tensor:
    return weight.T.unflatten(1, (heads.query, -1))


def _write_key(heads: Heads, weight: Tensor) -> Tensor:
    return weight.T.unflatten(1, (heads.key, -1))


def _read_out(heads: Heads, kernel: Tensor) -> Tensor:
    """(heads, head width, width) → (width, heads · head width)."""
    return kernel.flatten(0, 1).T


def _write_out(heads: Heads, weight: Tensor) -> Tensor:
    return weight.T.unflatten(0, (heads.query, -1))


def _flat(heads: Heads, bias: Tensor) -> Tensor:
    return bias.flatten()


def _of_query_heads(heads: Heads, bias: Tensor) -> Tensor:
    return bias.unflatten(0, (heads.query, -1))


def _of_key_heads(heads: Heads, bias: Tensor) -> Tensor:
    return bias.unflatten(0, (heads.key, -1))


MULTI_HEAD = Bridge(
    "keras.layers.MultiHeadAttention",
    (
        Row(("query/kernel",), ("q_proj.weight",), _read_in, _write_query),
        Row(("key/kernel",), ("k_proj.weight",), _read_in, _write_key),
        Row(("value/kernel",), ("v_proj.weight",), _read_in, _write_key),
        Row(("gate/kernel",), ("gate_proj.weight",), _read_in, _write_query),
        Row(("attention_output/kernel",), ("o_proj.weight",), _read_out, _write_out),
        Row(("query/bias",), ("q_proj.bias",), _flat, _of_query_heads),
        Row(("key/bias",), ("k_proj.bias",), _flat, _of_key_heads),
        Row(("value/bias",), ("v_proj.bias",), _flat, _of_key_heads),
        Row(("attention_output/bias",), ("o_proj.bias",)),
    ),
)
ADDITIVE = Bridge(
    "keras.layers.AdditiveAttention",
    (
        Row(
            ("scale",), ("score.weight",), lambda heads, s: s[None], lambda heads, weight: weight[0]
        ),
    ),
)

# Of a config: what the bridge reads, and what says nothing about the numbers.
_READ = {"num_heads", "key_dim", "value_dim", "dropout", "use_bias", "use_gate", "sliding_window"}
_IDLE = {
    "activity_regularizer", "attention_axes", "bias_constraint", "bias_initializer",
    "bias_regularizer", "dtype", "flash_attention", "kernel_constraint", "kernel_initializer",
    "kernel_regularizer", "name", "output_shape", "score_mode", "seed", "trainable", "use_scale",
    "query_shape", "value_shape", "key_shape",
}  # fmt: skip


def from_keras(config: Mapping[str, Any], weights: Weights) -> Attention:
    """`Attention` with the numbers of a Keras MultiHeadAttention.

    Keras calls `layer(query, value, key)`; here keys and values are read from one memory, so the
    layers agree where Keras' key is its value (its default). `attention_mask` is a bool
    `attn_mask` with the same polarity (and an axis for heads), `use_causal_mask` is `is_causal`,
    for sequences of equal length.

    Args:
        config: `layer.get_config()`. Missing keys mean Keras' defaults.
        weights: arrays or tensors by path (module docstring).

    Raises:
        ArgumentError: an option that `Attention` cannot honour, or a weight that no row knows.
        ArgumentTypeError: a config that is no mapping, or weights that are no mapping of arrays of
            floating-point numbers.
    """
    tensors = tensors_by_path(weights, 2)
    _check_config(config, tensors)
    query, key = tensors["query/kernel"], tensors["key/kernel"]
    window = config.get("sliding_window")
    reach = None if window is None else whole("sliding_window", window) - 1
    layer = Attention(
        query.shape[0],
        config["num_heads"],
        head_width=config["key_dim"],
        memory_width=key.shape[0],
        sites=Sites(mixed="gate(sigmoid)") if config.get("use_gate") else Sites(),
        bias=config.get("use_bias", True),
        dropout=config.get("dropout", 0.0),
        window_size=None if reach is None else (reach, reach),
    )
    heads = Heads(layer.heads, layer.kv_heads)
    return loaded(layer, MULTI_HEAD.read(tensors, heads), MULTI_HEAD.name)


def to_keras(layer: Attention) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The constructor's options and the weights of the Keras MultiHeadAttention with our numbers.

    Returns:
        (options for `keras.layers.MultiHeadAttention(**options)`, weights by path).

    Raises:
        ArgumentError: what Keras' layer has no place for.
        ArgumentTypeError: not an `Attention`.
    """
    _check_layer("to_keras", layer)
    gate = layer.sites == Sites(mixed="gate(sigmoid)")
    state = layer.state_dict()
    bias = "q_proj.bias" in state
    if not (gate or layer.sites == Sites()) or (gate and bias):
        raise ArgumentError(f"Keras' MultiHeadAttention has no place for sites={layer.sites!s}")
    left, right = layer.window_size
    wrong = {
        f"kv_heads={layer.kv_heads}": layer.kv_heads != layer.heads,
        f"positions={layer.positions}": layer.positions is not None,
        f"window_size={layer.window_size}": left != right,
    }
    if any(wrong.values()):
        named = ", ".join(what for what, is_wrong in wrong.items() if is_wrong)
        raise ArgumentError(f"Keras' MultiHeadAttention has no place for {named}")
    options = {
        "num_heads": layer.heads,
        "key_dim": layer.head_width,
        "dropout": layer.dropout,
        "use_bias": bias,
    }
    options |= {"use_gate": True} if gate else {}
    options |= {} if left is None else {"sliding_window": left + 1}
    return options, MULTI_HEAD.write(state, Heads(layer.heads, layer.kv_heads))


def from_keras_additive(
    config: Mapping[str, Any], weights: Weights, width: int | None = None
) -> Attention:
    """`Attention` with the numbers of Keras' AdditiveAttention, which has no projections.

    Queries and keys meet as they come, under one head: `query=identity key=identity
    value=identity score=additive(tanh) output=identity`. `layer(query, value)` agrees with Keras'
    `layer([query, value])`.

    Args:
        config: `layer.get_config()`.
        weights: the array `scale` by its path (module docstring); none where `use_scale` is False,
            which is a scale of ones.
        width: features, needed where there is no scale.

    Raises:
        ArgumentError: an option or weight that does not fit.
        ArgumentTypeError: as `from_keras`.
    """
    _check_known(config, {"dropout"} | _IDLE, ADDITIVE.name)
    tensors = tensors_by_path(weights, 1)
    if not config.get("use_scale", True):
        if tensors:
            raise ArgumentError(f"use_scale=False goes without weights, and {list(tensors)} came")
        if width is None:
            raise ArgumentError("use_scale=False leaves no weight to tell the width: pass width")
        tensors = {"scale": torch.ones(width)}
    if "scale" not in tensors:
        raise ArgumentError(f"{ADDITIVE.name} with use_scale needs the weight 'scale'")
    shape = tuple(tensors["scale"].shape)
    if len(shape) != 1:
        raise ArgumentError(f"the weight 'scale' has one axis, (features,), not the shape {shape}")
    sites = Sites(
        query="identity", key="identity", value="identity", output="identity",
        score="additive(tanh)",
    )  # fmt: skip
    layer = Attention(len(tensors["scale"]), 1, sites=sites, dropout=config.get("dropout", 0.0))
    return loaded(layer, ADDITIVE.read(tensors, Heads(1, 1)), ADDITIVE.name)


def to_keras_additive(layer: Attention) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Options and weights of the Keras AdditiveAttention with our numbers.

    Raises:
        ArgumentError: a layer with projections, several heads or another score.
        ArgumentTypeError: not an `Attention`.
    """
    _check_layer("to_keras_additive", layer)
    plain = from_keras_additive({"use_scale": False}, {}, layer.width)
    if layer.sites != plain.sites or layer.heads != 1:
        raise ArgumentError(
            f"Keras' AdditiveAttention is sites={str(plain.sites)!r} under one head, not "
            f"{str(layer.sites)!r} under {layer.heads}"
        )
    return {"dropout": layer.dropout}, ADDITIVE.write(layer.state_dict(), Heads(1, 1))


def _check_layer(name: str, layer: object) -> None:
    if not isinstance(layer, Attention):
        raise ArgumentTypeError(f"{name} takes an ogive.Attention, not {layer!r}")


def _check_config(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    _check_known(config, _READ | _IDLE, MULTI_HEAD.name)
    for name in ("num_heads", "key_dim"):
        if name not in config:
            raise ArgumentError(f"the config of {MULTI_HEAD.name} lacks {name!r}")
    for name in ("query/kernel", "key/kernel", "value/kernel", "attention_output/kernel"):
        if name not in tensors:
            raise ArgumentError(f"the weights lack {name!r} (they hold {sorted(tensors)})")
        if tensors[name].dim() != 3:
            raise ArgumentError(
                f"the weight {name!r} has three axes, not the shape {tuple(tensors[name].shape)}: "
                "(features, heads, features per head), of the output the heads first"
            )
    reads = (tensors["key/kernel"].shape[0], tensors["value/kernel"].shape[0])
    width, gives = tensors["query/kernel"].shape[0], tensors["attention_output/kernel"].shape[-1]
    refused = {
        f"value_dim={config.get('value_dim')} beside key_dim={config['key_dim']}": (
            config.get("value_dim") not in (None, config["key_dim"])
        ),
        f"attention_axes={config.get('attention_axes')}": (
            tuple(config.get("attention_axes") or (1,)) != (1,)
        ),
        f"an output {gives} wide for queries {width} wide": gives != width,
        "use_gate with use_bias: its gate has no bias": bool(
            config.get("use_gate") and config.get("use_bias", True)
        ),
        f"keys and values of widths {reads}: both come from one memory": reads[0] != reads[1],
    }
    for what, wrong in refused.items():
        if wrong:
            raise ArgumentError(f"ogive.Attention cannot honour {what}")


def _check_known(config: object, known: set[str], name: str) -> None:
    if not isinstance(config, Mapping):
        raise ArgumentTypeError(
            f"config takes the dictionary of layer.get_config(), not {type(config).__name__}"
        )
    unknown = sorted(set(config) - known)
    if unknown:
        raise ArgumentError(f"the config of {name} has options that Ogive does not know: {unknown}")

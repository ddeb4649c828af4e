"""Write what Keras' attention layers compute, for the tests that compare Ogive's bridges with it.

    pip install keras          # with torch as its backend; not a dependency of Ogive
    KERAS_BACKEND=torch python scripts/keras_cases.py

Writes tests/integrations/keras_cases.npz: for each case the layer's configuration, its variables by
path as `ogive.integrations.keras` says how to collect them, inputs, outputs and the gradients of a
weighted sum of the outputs. They are right to float32: on the torch backend Keras' matrix products
round to it whatever the layer's dtype.
"""

from __future__ import annotations

import json
from pathlib import Path

import keras
import numpy as np
import torch

keras.config.set_floatx("float64")
keras.config.set_dtype_policy("float64")
PATH = Path(__file__).parents[1] / "tests" / "integrations" / "keras_cases.npz"
MULTI_HEAD = {
    "plain": ({"num_heads": 3, "key_dim": 4}, {}),
    "no_bias": ({"num_heads": 2, "key_dim": 5, "use_bias": False}, {}),
    "gate": ({"num_heads": 2, "key_dim": 4, "use_bias": False, "use_gate": True}, {}),
    "causal": ({"num_heads": 2, "key_dim": 3}, {"use_causal_mask": True}),
    "window": ({"num_heads": 2, "key_dim": 3, "sliding_window": 2}, {}),
    "masked": ({"num_heads": 2, "key_dim": 3}, {"attention_mask": True}),
    "memory": ({"num_heads": 2, "key_dim": 4}, {"memory": True}),
    "dropout": ({"num_heads": 2, "key_dim": 3, "dropout": 0.3, "name": "named"}, {}),
}
ADDITIVE = {
    "additive": {},
    "additive_unscaled": {"use_scale": False},
    "additive_dropout": {"dropout": 0.3, "name": "named"},
    "additive_unscaled_dropout": {"use_scale": False, "dropout": 0.3},
}


def main() -> None:
    """Run every case and write the file."""
    generator = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for name, (options, call) in MULTI_HEAD.items():
        layer = keras.layers.MultiHeadAttention(**options)
        query = generator.normal(size=(2, 6, 12))
        memory = generator.normal(size=(2, 5, 7)) if call.get("memory") else query
        more = {k: v for k, v in call.items() if k == "use_causal_mask"}
        if call.get("attention_mask"):
            mask = generator.random((2, 6, 6)) < 0.6
            mask[..., 0] = True
            more["attention_mask"] = mask
            arrays[f"{name}/attention_mask"] = mask
        inputs = {"query": query, "memory": memory}
        arrays |= record(name, layer, inputs, lambda q, m, f=layer, o=more: f(q, m, **o), generator)
    for name, options in ADDITIVE.items():
        layer = keras.layers.AdditiveAttention(**options)
        inputs = {
            "query": generator.normal(size=(2, 4, 6)),
            "memory": generator.normal(size=(2, 5, 6)),
        }
        arrays |= record(name, layer, inputs, lambda q, m, f=layer: f([q, m]), generator)
    np.savez_compressed(PATH, **arrays)  # type: ignore[arg-type]
    print(f"{len(arrays)} arrays, keras {keras.__version__}: {PATH}")


def record(name, layer, inputs, call, generator) -> dict[str, np.ndarray]:
    """The arrays of one case, with weights off their start so that biases are not zero."""
    tensors = {k: torch.tensor(v, requires_grad=True) for k, v in inputs.items()}
    call(*tensors.values())
    for variable in layer.trainable_variables:
        variable.assign(generator.normal(size=variable.shape) * 0.4)
    if inputs["memory"] is inputs["query"]:
        tensors["memory"] = tensors["query"]
    out = call(*tensors.values())
    slope = generator.normal(size=tuple(out.shape))
    (out * torch.tensor(slope)).sum().backward()
    found = {"out": out.detach().numpy(), "slope": slope}
    found |= {k: v for k, v in inputs.items() if k == "query" or v is not inputs["query"]}
    found |= {f"grad/{k}": t.grad.numpy() for k, t in tensors.items() if k in found}
    found |= {f"weight/{v.path}": v.numpy() for v in layer.variables}
    found |= {f"weight_grad/{v.path}": v.value.grad.numpy() for v in layer.trainable_variables}
    config = {k: v for k, v in layer.get_config().items() if not isinstance(v, dict) or k == "x"}
    found["config"] = np.array(json.dumps(config))
    return {f"{name}/{key}": array for key, array in found.items()}


if __name__ == "__main__":
    main()

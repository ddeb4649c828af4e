"""T15: bad input. Each raises the right error, which names the argument and what came."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from ogive.errors import ArgumentError, ArgumentTypeError, ImplUnavailable, OgiveError, UnknownName
from ogive.kernels import AuxRequest, attention, last_impl
from ogive.parts import Sizes, build, score_from

F32 = torch.float32
SIZES = Sizes(8, 2, 4)


def tensor(*shape, dtype=F32, device="cpu"):
    return torch.ones(*shape, dtype=dtype, device=device)


def q(*shape, **more):
    return {"query": tensor(*(shape or (2, 2, 5, 4)), **more)}


def k(*shape, **more):
    return {"key": tensor(*(shape or (2, 2, 5, 4)), **more)}


def v(*shape, **more):
    return {"value": tensor(*(shape or (2, 2, 5, 4)), **more)}


def mask(*shape, dtype=torch.bool, **more):
    return {"attn_mask": tensor(*shape, dtype=dtype, **more)}


def bias(*shape, **more):
    return {"attn_bias": tensor(*shape, **more)}


RAGGED = torch.nested.as_nested_tensor([torch.ones(5, 4)], layout=torch.jagged)
WRONG, KIND, IMPL = ArgumentError, ArgumentTypeError, ImplUnavailable
CASES = [
    # (arguments, error, words that the message must hold: the argument, then what came)
    ({"query": None}, KIND, ["query", "NoneType"]),
    ({"query": [[1.0]]}, KIND, ["query", "list"]),
    ({"query": np.ones((2, 2, 5, 4))}, KIND, ["query", "ndarray"]),
    ({"key": None}, KIND, ["key", "NoneType"]),
    ({"key": 3.0}, KIND, ["key", "float"]),
    ({"value": "value"}, KIND, ["value", "str"]),
    (q(5, 4), WRONG, ["query", "4 axes", "(5, 4)"]),
    (q(2, 5, 4), WRONG, ["query", "4 axes", "(2, 5, 4)"]),
    (q(1, 2, 2, 5, 4), WRONG, ["query", "4 axes", "(1, 2, 2, 5, 4)"]),
    (k(2, 5, 4), WRONG, ["key", "4 axes", "(2, 5, 4)"]),
    (v(4), WRONG, ["value", "4 axes", "(4,)"]),
    ({"value": torch.tensor(1.0)}, WRONG, ["value", "4 axes", "()"]),
    (q(dtype=torch.int64), KIND, ["query", "int64"]),
    (q(dtype=torch.bool), KIND, ["query", "bool"]),
    (q(dtype=torch.complex64), KIND, ["query", "complex64"]),
    (k(dtype=torch.uint8), KIND, ["key", "uint8"]),
    (v(dtype=torch.int32), KIND, ["value", "int32"]),
    ({"query": tensor(2, 2, 5, 4).to_sparse()}, KIND, ["query", "strided", "sparse_coo"]),
    ({"value": tensor(2, 2, 5, 4).to_mkldnn()}, KIND, ["value", "strided", "mkldnn"]),
    ({"key": RAGGED}, KIND, ["key", "nested"]),
    ({"attn_mask": tensor(5, 5).to_sparse()}, KIND, ["attn_mask", "strided", "sparse_coo"]),
    ({"attn_bias": tensor(5, 5).to_sparse()}, KIND, ["attn_bias", "strided", "sparse_coo"]),
    (bias(5, 5, dtype=torch.float8_e4m3fn), KIND, ["attn_bias", "float8_e4m3fn", "bfloat16"]),
    (mask(5, 5, dtype=torch.float8_e5m2), KIND, ["attn_mask", "float8_e5m2", "bfloat16"]),
    (q(dtype=torch.float8_e4m3fn), KIND, ["query", "float8_e4m3fn", "bfloat16"]),
    (k(dtype=torch.float64), KIND, ["key", "float64", "float32"]),
    (k(dtype=torch.float16), KIND, ["key", "float16", "float32"]),
    (v(dtype=torch.bfloat16), KIND, ["value", "bfloat16", "float32"]),
    (k(device="meta"), KIND, ["key", "meta", "cpu"]),
    (v(device="meta"), KIND, ["value", "meta", "cpu"]),
    (q(3, 2, 5, 4), WRONG, ["query", "batch", "(3, 2, 5, 4)", "(2, 2, 5, 4)"]),
    (k(1, 2, 5, 4), WRONG, ["key", "batch", "(1, 2, 5, 4)", "(2, 2, 5, 4)"]),
    (v(0, 2, 5, 4), WRONG, ["value", "batch", "(0, 2, 5, 4)"]),
    (q(2, 2, 5, 3), WRONG, ["query", "width", "(2, 2, 5, 3)", "(2, 2, 5, 4)"]),
    (k(2, 2, 5, 8), WRONG, ["key", "width", "(2, 2, 5, 8)"]),
    (v(2, 2, 6, 4), WRONG, ["value", "length", "(2, 2, 6, 4)"]),
    (v(2, 1, 5, 4), WRONG, ["value", "heads", "(2, 1, 5, 4)"]),
    (k(2, 1, 5, 4) | v(2, 1, 5, 4), WRONG, ["2 heads", "has 1", "enable_gqa"]),
    (q(2, 4, 5, 4), WRONG, ["4 heads", "has 2", "enable_gqa"]),
    (q(2, 3, 5, 4) | {"enable_gqa": True}, WRONG, ["3 query heads", "2 key heads"]),
    (q(2, 1, 5, 4) | {"enable_gqa": True}, WRONG, ["1 query heads", "2 key heads"]),
    (k(2, 0, 5, 4) | v(2, 0, 5, 4) | {"enable_gqa": True}, WRONG, ["2 query heads", "0 key heads"]),
    ({"enable_gqa": 1}, KIND, ["enable_gqa", "1"]),
    ({"enable_gqa": "yes"}, KIND, ["enable_gqa", "'yes'"]),
    (mask(5, 5, dtype=torch.int64), KIND, ["attn_mask", "int64", "True = may attend"]),
    (mask(5, 5, dtype=torch.uint8), KIND, ["attn_mask", "uint8"]),
    (mask(5, 5, dtype=torch.int32), KIND, ["attn_mask", "int32"]),
    (mask(5, 5, dtype=torch.complex64), KIND, ["attn_mask", "complex64"]),
    ({"attn_mask": [[True]]}, KIND, ["attn_mask", "list"]),
    ({"attn_mask": "causal"}, KIND, ["attn_mask", "str"]),
    ({"attn_mask": True}, KIND, ["attn_mask", "bool"]),
    (mask(4, 5), WRONG, ["attn_mask", "(4, 5)", "(2, 2, 5, 5)"]),
    (mask(5, 4), WRONG, ["attn_mask", "(5, 4)", "(2, 2, 5, 5)"]),
    (mask(2, 5, 5, 1, 1), WRONG, ["attn_mask", "(2, 5, 5, 1, 1)"]),
    (mask(3, 1, 5, 5), WRONG, ["attn_mask", "(3, 1, 5, 5)"]),
    (mask(2, 3, 5, 5), WRONG, ["attn_mask", "(2, 3, 5, 5)"]),
    (mask(0, 5), WRONG, ["attn_mask", "(0, 5)"]),
    ({"attn_mask": torch.tensor(True)}, WRONG, ["attn_mask", "()"]),
    (mask(5, 5, device="meta"), KIND, ["attn_mask", "meta", "cpu"]),
    (bias(4, 5), WRONG, ["attn_bias", "(4, 5)", "(2, 2, 5, 5)"]),
    (bias(2, 4, 5, 5), WRONG, ["attn_bias", "(2, 4, 5, 5)"]),
    (bias(5, 5, dtype=torch.bool), KIND, ["attn_bias", "bool", "attn_mask"]),
    (bias(5, 5, dtype=torch.int64), KIND, ["attn_bias", "int64"]),
    (bias(5, 5, dtype=torch.complex64), KIND, ["attn_bias", "complex64"]),
    (bias(5, 5, device="meta"), KIND, ["attn_bias", "meta", "cpu"]),
    ({"attn_bias": 0.5}, KIND, ["attn_bias", "float"]),
    ({"is_causal": 1}, KIND, ["is_causal", "1"]),
    ({"is_causal": None}, KIND, ["is_causal", "None"]),
    ({"is_causal": "top_left"}, KIND, ["is_causal", "'top_left'"]),
    ({"is_causal": torch.tensor(True)}, KIND, ["is_causal", "tensor"]),
    (q(2, 2, 3, 4) | {"is_causal": True}, WRONG, ["is_causal", "3 queries", "5 keys", "q_offset"]),
    (q(2, 2, 9, 4) | {"is_causal": True}, WRONG, ["is_causal", "9 queries", "5 keys"]),
    (q(2, 2, 3, 4) | {"window_size": (1, 1)}, WRONG, ["window_size", "3 queries", "5 keys"]),
    ({"q_offset": 0}, WRONG, ["q_offset", "is_causal"]),
    ({"q_offset": 2, "window_size": (None, None)}, WRONG, ["q_offset", "is_causal"]),
    ({"q_offset": 1.5, "is_causal": True}, KIND, ["q_offset", "1.5"]),
    ({"q_offset": True, "is_causal": True}, KIND, ["q_offset", "True"]),
    ({"q_offset": "end", "is_causal": True}, KIND, ["q_offset", "'end'"]),
    ({"q_offset": tensor(2), "is_causal": True}, KIND, ["q_offset", "float32"]),
    ({"q_offset": tensor(2, dtype=torch.bool), "is_causal": True}, KIND, ["q_offset", "bool"]),
    (
        {"q_offset": tensor(3, dtype=torch.int64), "is_causal": True},
        WRONG,
        ["q_offset", "(3,)", "2"],
    ),
    (
        {"q_offset": tensor(2, 1, dtype=torch.int64), "is_causal": True},
        WRONG,
        ["q_offset", "(2, 1)"],
    ),
    (
        {"q_offset": tensor(2, dtype=torch.int64, device="meta"), "is_causal": True},
        KIND,
        ["q_offset", "meta", "cpu"],
    ),
    ({"window_size": 3}, KIND, ["window_size", "3"]),
    ({"window_size": (1,)}, KIND, ["window_size", "(1,)"]),
    ({"window_size": (1, 2, 3)}, KIND, ["window_size", "(1, 2, 3)"]),
    ({"window_size": (1.5, 0)}, KIND, ["window_size", "1.5"]),
    ({"window_size": (True, 0)}, KIND, ["window_size", "True"]),
    ({"window_size": (0, "2")}, KIND, ["window_size", "'2'"]),
    ({"window_size": (-2, 0)}, WRONG, ["window_size", "-2"]),
    ({"window_size": (0, -7)}, WRONG, ["window_size", "-7"]),
    ({"scale": "0.5"}, KIND, ["scale", "'0.5'"]),
    ({"scale": True}, KIND, ["scale", "True"]),
    ({"scale": torch.tensor(0.5)}, KIND, ["scale", "tensor(0.5"]),
    ({"scale": 1j}, KIND, ["scale", "1j"]),
    ({"scale": float("nan")}, WRONG, ["scale", "nan"]),
    ({"scale": float("inf")}, WRONG, ["scale", "inf"]),
    ({"dropout_p": -0.1}, WRONG, ["dropout_p", "-0.1"]),
    ({"dropout_p": 1.0}, WRONG, ["dropout_p", "1.0"]),
    ({"dropout_p": 1.5}, WRONG, ["dropout_p", "1.5"]),
    ({"dropout_p": float("nan")}, WRONG, ["dropout_p", "nan"]),
    ({"dropout_p": "0.1"}, KIND, ["dropout_p", "'0.1'"]),
    ({"dropout_p": None}, KIND, ["dropout_p", "None"]),
    ({"dropout_p": True}, KIND, ["dropout_p", "True"]),
    ({"score": None}, KIND, ["score", "None"]),
    ({"score": torch.dot}, KIND, ["score", "dot"]),
    ({"score": build("weight", "softmax")}, KIND, ["score", "Softmax"]),
    ({"score": "dott"}, UnknownName, ["score", "'dott'", "'dot'"]),
    ({"score": "dot(3)"}, WRONG, ["dot(3)", "no arguments"]),
    ({"score": "softcap(30),dot"}, WRONG, ["dot cannot follow", "score"]),
    ({"score": "dot,"}, WRONG, ["'dot,'", "the end"]),
    ({"score": "gat"}, WRONG, ["gat", "setup"]),
    ({"score": "bilinear"}, WRONG, ["bilinear", "setup"]),
    ({"score": score_from("gat").setup(Sizes(8, 4, 4))}, WRONG, ["gat", "(4, 4)", "(2, 4)"]),
    ({"score": score_from("gatv2").setup(Sizes(8, 2, 8))}, WRONG, ["gatv2", "(2, 8)", "(2, 4)"]),
    ({"weight": None}, KIND, ["weight", "None"]),
    ({"weight": torch.softmax}, KIND, ["weight", "softmax"]),
    ({"weight": score_from("dot")}, KIND, ["weight", "Dot"]),
    ({"weight": "sofmax"}, UnknownName, ["weight", "'sofmax'", "'softmax'"]),
    ({"weight": "relu(power=2)"}, WRONG, ["relu(power=2)", "length_power"]),
    ({"weight": "sigmoid(bias=log_n)"}, WRONG, ["sigmoid(bias)", "'log_n'", "-log_n"]),
    ({"weight": ""}, WRONG, ["''", "exactly one"]),
    ({"weight": "softmax,softmax"}, WRONG, ["'softmax,softmax'", "2 parts"]),
    ({"weight": "sink"}, WRONG, ["sink", "setup"]),
    (
        {"weight": build("weight", "sink").setup(Sizes(8, 3, 4))},
        WRONG,
        ["sink", "3 heads", "has 2"],
    ),
    ({"return_aux": True}, KIND, ["return_aux", "True"]),
    ({"return_aux": {"lse": True}}, KIND, ["return_aux", "lse"]),
    ({"return_aux": AuxRequest(weights_rows=[5])}, WRONG, ["weights_rows", "[5]", "5 queries"]),
    ({"return_aux": AuxRequest(weights_rows=[-1])}, WRONG, ["weights_rows", "[-1]"]),
    ({"return_aux": AuxRequest(weights_rows=[0.5])}, KIND, ["weights_rows", "[0.5]"]),
    ({"return_aux": AuxRequest(weights_rows=[[0]])}, KIND, ["weights_rows", "[[0]]"]),
    ({"impl": "nativ"}, UnknownName, ["impl", "'nativ'", "'native'"]),
    ({"impl": None}, KIND, ["impl", "None"]),
    ({"impl": ["sdpa"]}, KIND, ["impl", "['sdpa']"]),
    ({"impl": "native", "score": "dot,softcap(5),softcap(2)"}, IMPL, ["impl", "'native'"]),
    ({"impl": "flex"}, IMPL, ["impl", "'flex'", "FlexAttention"]),
    ({"impl": "sdpa", "weight": "tanh"}, IMPL, ["'sdpa'", "softmax", "tanh"]),
    ({"impl": "sdpa", "score": "cosine"}, IMPL, ["'sdpa'", "dot", "cosine"]),
    ({"impl": "sdpa", "score": "dot,softcap(5)"}, IMPL, ["'sdpa'", "dot", "softcap(5)"]),
    ({"impl": "sdpa", "dropout_p": 0.5}, IMPL, ["'sdpa'", "dropout"]),
    ({"impl": "sdpa", "return_aux": AuxRequest(lse=True)}, IMPL, ["'sdpa'", "statistics"]),
]


def given(changed):
    return q() | k() | v() | changed


@pytest.mark.parametrize("at", range(len(CASES)))
def test_bad_input_is_named(at, count):
    changed, error, words = CASES[at]
    before = last_impl()
    with pytest.raises(OgiveError) as caught:
        attention(**given(changed))
    assert type(caught.value) is error, f"{type(caught.value).__name__}: {caught.value}"
    missing = [word for word in words if word not in str(caught.value)]
    assert not missing, f"{missing} not in: {caught.value}"
    assert last_impl() == before, "a call that raised is not the latest call that ran"
    count("T15", 1)


def test_there_are_enough_bad_inputs():
    assert len(CASES) >= 80
    shown = [(sorted(changed), words) for changed, _, words in CASES]
    assert all(one != two for one, two in itertools.combinations(shown, 2)), "a case stands twice"


def test_the_call_behind_them_is_good():
    assert attention(**given({})).shape == (2, 2, 5, 4)


@pytest.mark.parametrize("name", ["score", "weight", "impl", "attn_bias", "return_aux"])
def test_options_come_by_name(name):
    with pytest.raises(TypeError, match="positional"):
        attention(tensor(1, 1, 1, 1), tensor(1, 1, 1, 1), tensor(1, 1, 1, 1), name)

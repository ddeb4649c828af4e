"""Cache: decoding in pieces gives what one call over the whole sequence gives."""

from __future__ import annotations

import pytest
import torch

from layers.cases import HEADS, WIDTH, close, drawn, shaken
from layers.wrong import Forgetful, Late, Short
from ogive.layers import Attention, Cache

PIECES = [(1,) * 9, (4, 5), (8, 1), (1, 3, 1, 4), (9,)]


def in_pieces(layer, x, pieces, cache, **pairs):
    """The layer over x piece by piece; `pairs` are masks of all pairs, cut for each piece."""
    outs, end = [], 0
    for size in pieces:
        start, end = end, end + size
        cut = {name: _cut(name, t, start, end) for name, t in pairs.items()}
        outs.append(layer(x[:, start:end], is_causal=True, cache=cache, **cut))
    return torch.cat(outs, 1)


def _cut(name, pairs, start, end):
    return pairs[:, :end] if name == "key_mask" else pairs[..., start:end, :end]


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("positions", ["rope", "alibi", "relative", None])
@pytest.mark.parametrize("window", [None, (3, None), (0, 0), (2, 2)])
def test_pieces_equal_the_whole(pieces, positions, window):
    sites = "query=conv(3) key=conv(2),conv(3) value=gelu mixed=conv(4) output=conv(2)"
    layer = shaken(
        Attention(WIDTH, HEADS, kv_heads=2, positions=positions, window_size=window, sites=sites)
    )
    x, cache = drawn(2, 9, WIDTH), Cache()
    close(in_pieces(layer, x, pieces, cache), layer(x, is_causal=True))
    assert cache.length == 9
    assert cache.kept == (9 if window is None else window[0])


@pytest.mark.parametrize("pieces", PIECES)
@pytest.mark.parametrize("window", [None, (3, None)])
def test_masks_and_bias_count_all_keys(pieces, window):
    layer = shaken(Attention(WIDTH, HEADS, window_size=window, sites="weight=tanh key=conv(3)"))
    x = drawn(2, 9, WIDTH)
    for pairs in (
        {"key_mask": torch.arange(9) >= torch.tensor([[0], [4]])},
        {"attn_mask": drawn(2, 1, 9, 9, seed=4) > 0},
        {"attn_bias": drawn(1, HEADS, 9, 9, seed=5)},
    ):
        close(in_pieces(layer, x, pieces, Cache(), **pairs), layer(x, is_causal=True, **pairs))


@pytest.mark.parametrize("window", [None, (2, 1)])
@pytest.mark.parametrize("is_causal", [True, False])
def test_memory_is_read_once(window, is_causal):
    layer = shaken(Attention(WIDTH, HEADS, window_size=window, sites="query=conv(3) key=conv(2)"))
    x, memory = drawn(2, 6, WIDTH), drawn(2, 6, WIDTH, seed=2)
    mask = torch.arange(6) < torch.tensor([[6], [4]])
    reads = []
    layer.k_proj.register_forward_hook(lambda *_: reads.append(1))
    whole = layer(x, memory, key_mask=mask, is_causal=is_causal)
    cache = Cache()
    outs = [layer(x[:, :2], memory, key_mask=mask, is_causal=is_causal, cache=cache)]
    outs += [layer(x[:, 2:3], memory, key_mask=mask, is_causal=is_causal, cache=cache)]
    outs += [layer(x[:, 3:], key_mask=mask, is_causal=is_causal, cache=cache)]
    close(torch.cat(outs, 1), whole)
    assert len(reads) == 2


def test_select_reorders_the_batch():
    layer = shaken(Attention(WIDTH, HEADS, sites="key=conv(3)", positions="rope"))
    x, order = drawn(3, 5, WIDTH), torch.tensor([2, 0, 0])
    cache = Cache()
    layer(x[:, :4], is_causal=True, cache=cache)
    cache.select(order)
    last = layer(x[order, 4:], is_causal=True, cache=cache)
    close(last, layer(x, is_causal=True)[order, 4:])


def test_a_window_bounds_what_is_kept():
    layer = shaken(Attention(WIDTH, HEADS, window_size=(3, 0)))
    cache = Cache()
    for _ in range(20):
        layer(drawn(1, 2, WIDTH), is_causal=True, cache=cache)
    assert (cache.length, cache.kept) == (40, 3)


@pytest.mark.parametrize("wrong", [Late, Forgetful, Short])
@pytest.mark.parametrize("pieces", PIECES[:4])
def test_bites_on_wrong_caches(wrong, pieces):
    layer = shaken(Attention(WIDTH, HEADS, positions="rope", sites="query=conv(3) value=conv(2)"))
    x = drawn(2, 9, WIDTH)
    with pytest.raises(AssertionError):
        close(in_pieces(layer, x, pieces, wrong()), layer(x, is_causal=True))

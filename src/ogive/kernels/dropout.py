"""Dropout by counting: whether a weight is kept depends on (seed, b, h, i, j) and nothing else.

So the pattern does not change with threads, blocking or the lengths around it, and a backward
pass can draw it again.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Odd 64-bit multipliers (splitmix64, Steele 2014), written as signed integers.
_GOLDEN = -7046029254386353131
_FIRST = -4658895280553007687
_SECOND = -7723592293110705685
# Odd 32-bit multipliers (Wellons, "Prospecting for hash functions", 2018), and the golden ratio.
_STEP = 0x9E3779B9
_THIRD = 0x7FEB352D
_FOURTH = 0x846CA68B
_WORD = 2**32 - 1
_BITS = 24


def draw_seed(device: torch.device) -> Tensor:
    """A seed from torch's global generator, so that `torch.manual_seed` governs dropout."""
    return torch.randint(2**62, (), device=device)


def kept(
    seed: Tensor, shape: torch.Size, probability: float, first: tuple[int, int] = (0, 0)
) -> Tensor:
    """Which weights stay: bool (batch, heads, queries, keys), False with `probability`.

    first: the example and the query of the whole call that stand first here.
    """
    counter = seed
    for axis, size in enumerate(shape[:-1]):
        start = {0: first[0], len(shape) - 2: first[1]}.get(axis, 0)
        place = torch.arange(start, start + size, device=seed.device)
        place = place.view(-1, *[1] * (len(shape) - axis - 1))
        counter = _mix(counter + (place + 1) * _GOLDEN)
    place = torch.arange(shape[-1], device=seed.device)
    return _bits(counter, place) >= round(probability * 2**_BITS)


def drop(
    weights: Tensor, seed: Tensor, probability: float, first: tuple[int, int] = (0, 0)
) -> Tensor:
    """Weights with some set to zero and the others divided by 1 − probability."""
    stay = kept(seed, weights.shape, probability, first)
    return torch.where(stay, weights / (1 - probability), 0)


def _bits(row: Tensor, place: Tensor) -> Tensor:
    """24 bits for each place of a row: words of 32 bits, of which vectors hold twice as many."""
    word = (row + (place + 1) * _STEP) & _WORD
    word = ((word ^ (word >> 16)) * _THIRD + ((row >> 32) & _WORD)) & _WORD
    word = ((word ^ (word >> 15)) * _FOURTH) & _WORD
    return (word ^ (word >> 16)) >> (32 - _BITS)


def _mix(counter: Tensor) -> Tensor:
    """The finaliser of splitmix64; shifts are made logical by masking the sign's copies."""
    counter = (counter ^ ((counter >> 30) & (2**34 - 1))) * _FIRST
    counter = (counter ^ ((counter >> 27) & (2**37 - 1))) * _SECOND
    return counter ^ ((counter >> 31) & (2**33 - 1))

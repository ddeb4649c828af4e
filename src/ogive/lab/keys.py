"""Random streams named by what they are for, so that nothing depends on what was drawn before.

`stream("text", seed, step)` is the same stream whoever asks, in whatever order. A single global
stream gives two variants different numbers as soon as one of them draws once more than the other.
"""

from __future__ import annotations

import hashlib

import torch


def key(*names: object) -> int:
    """A 63-bit number from names: the first bytes of the SHA-256 of their written forms.

    Torch's CPU generator seeds itself with the low 32 bits of it, so two names share a stream
    with a chance of one in four thousand million.
    """
    written = "\x1f".join(str(name) for name in names).encode()
    return int.from_bytes(hashlib.sha256(written).digest()[:8], "little") >> 1


def stream(*names: object) -> torch.Generator:
    """A fresh CPU generator for these names, at its start."""
    return torch.Generator().manual_seed(key(*names))

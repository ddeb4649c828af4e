"""Wrong twins: a battery that one of these passes tests nothing."""

from __future__ import annotations

import torch
from torch import nn

from ogive.layers import Cache
from ogive.parts import Map, Weight


class Late(Cache):
    """Wrong: believes that one position more has passed."""

    def advance(self, length, *more):
        super().advance(length + (self.length == 0), *more)


class Forgetful(Cache):
    """Wrong: starts the neighbours of each piece at zero."""

    def look_back(self, name, h, history):
        return torch.zeros_like(super().look_back(name, h, history))


class Short(Cache):
    """Wrong: keeps one key too few."""

    def advance(self, length, keys, values, *more):
        super().advance(length, keys[:, :, 1:], values[:, :, 1:], *more)


class LeakingConv(Map, listed=False):
    """Wrong: a convolution centred on its position, so it sees the next one."""

    name = "leaking_conv"

    def forward(self, h, x):
        return h + nn.functional.pad(h[:, 1:], (0, 0, 0, 0, 0, 1))


class LeakingWeight(Weight, listed=False):
    """Wrong: adds a large negative number where it should mask, then takes tanh of it."""

    name = "leaking_weight"

    def forward(self, scores, keep=None):
        return (scores if keep is None else scores + (~keep) * -1e4).tanh()

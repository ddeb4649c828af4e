"""Layers: attention with its sites, positions, cache, feed-forward network and block."""

from ogive.layers.attention import Attention
from ogive.layers.block import Block
from ogive.layers.cache import Cache
from ogive.layers.feedforward import FeedForward
from ogive.layers.graph import GraphAttention
from ogive.layers.graph_block import GraphBlock
from ogive.layers.multihead import MultiheadAttention
from ogive.layers.positions import Position

__all__ = [
    "Attention",
    "Block",
    "Cache",
    "FeedForward",
    "GraphAttention",
    "GraphBlock",
    "MultiheadAttention",
    "Position",
]

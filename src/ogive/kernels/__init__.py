"""The operation and its implementations."""

from ogive.kernels.attention import attention, impls
from ogive.kernels.auxiliary import Aux, AuxRequest
from ogive.kernels.edge_list import EdgeList
from ogive.kernels.edges import edge_attention, edge_impls
from ogive.kernels.entrance import Impl, last_impl

__all__ = [
    "Aux",
    "AuxRequest",
    "EdgeList",
    "Impl",
    "attention",
    "edge_attention",
    "edge_impls",
    "impls",
    "last_impl",
]

"""The operation and its implementations."""

from ogive.kernels.attention import Impl, attention, impls, last_impl
from ogive.kernels.auxiliary import Aux, AuxRequest

__all__ = ["Aux", "AuxRequest", "Impl", "attention", "impls", "last_impl"]

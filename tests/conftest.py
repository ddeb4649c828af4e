"""What every test gets: checked shapes, one thread, and fresh memory full of NaN on request."""

from __future__ import annotations

import jaxtyping
import pytest
import torch

# Shapes in signatures are checked in tests only, so this stands before any import of Ogive.
jaxtyping.install_import_hook(
    ["ogive.parts", "ogive.kernels", "ogive.layers", "ogive.models"], "shapechecks.check_shapes"
)

torch.set_num_threads(1)


@pytest.fixture
def unchecked_shapes():
    """No shape checks, as for a user: torch.compile and wrong shapes at the public edge need it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def nan_memory():
    """Fresh memory holds NaN, so that a result which reads what nobody wrote shows it."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    filling = torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.utils.deterministic.fill_uninitialized_memory = filling
    torch.use_deterministic_algorithms(deterministic)

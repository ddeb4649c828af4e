"""What every test gets: checked shapes, one thread, and fresh memory full of NaN on request."""

from __future__ import annotations

import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

# What is tested is this checkout, also where an editable install belongs to another one.
SOURCE = Path(__file__).parents[1] / "src"
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable_skbc")]
sys.path.insert(0, str(SOURCE))

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

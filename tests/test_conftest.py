"""The house's own instruments work: memory is poisoned when asked, and shapes are checked."""

from __future__ import annotations

import sys
import textwrap

import jaxtyping
import pytest
import torch


def test_fresh_memory_is_nan(nan_memory):
    for fresh in (
        torch.empty(1000),
        torch.empty(10, dtype=torch.float64),
        torch.empty_like(torch.ones(9)),
    ):
        assert fresh.isnan().all()


def test_one_thread():
    assert torch.get_num_threads() == 1


@pytest.fixture
def shaped(tmp_path, monkeypatch):
    """A module on the checked path, with a shape in its signature."""
    source = """
        from jaxtyping import Float
        from torch import Tensor

        def plain(width: int, maybe: Float[Tensor, "b"] | None = None) -> str:
            return width

        def scores(q: Float[Tensor, "b i d"], k: Float[Tensor, "b j d"]) -> Float[Tensor, "b i j"]:
            return q @ k.mT
    """
    package = tmp_path / "ogive_shaped"
    package.mkdir()
    (package / "__init__.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    with jaxtyping.install_import_hook(["ogive_shaped"], "shapechecks.check_shapes"):
        import ogive_shaped  # type: ignore[import-not-found]
    yield ogive_shaped
    del sys.modules["ogive_shaped"]


def test_a_wrong_shape_is_refused(shaped):
    assert shaped.scores(torch.ones(2, 3, 4), torch.ones(2, 5, 4)).shape == (2, 3, 5)
    with pytest.raises(jaxtyping.TypeCheckError):
        shaped.scores(torch.ones(2, 3, 4), torch.ones(3, 5, 4))


def test_only_shapes_are_checked(shaped):
    assert shaped.plain(2.5) == 2.5
    with pytest.raises(jaxtyping.TypeCheckError):
        shaped.plain(2, torch.ones(2, 3))


def test_a_wrong_shape_reaches_the_code_where_checks_are_off(shaped, unchecked_shapes):
    with pytest.raises(RuntimeError, match=r"[Bb]atch|size"):
        shaped.scores(torch.ones(2, 3, 4), torch.ones(3, 5, 4))


def test_ogive_is_on_the_checked_path():
    hooked = [finder for finder in sys.meta_path if getattr(finder, "modules", None)]
    assert any(finder.should_instrument("ogive.kernels.attention") for finder in hooked)

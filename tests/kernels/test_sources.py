"""A compiled module and the Python beside it: of one version, or the module is not used."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from kernels import children
from ogive.kernels import compiled
from ogive.kernels.sources import FOLDER, fingerprint

ELSEWHERE = """
import types
older = types.ModuleType("ogive.kernels._native")
older.__file__ = "older.so"
vars(older).update({held!r})
sys.modules["ogive.kernels._native"] = older
import torch
import ogive
from ogive.kernels import compiled, edge_impls
for impls in (ogive.impls(), edge_impls()):
    said = impls["native"].missing
    assert "older.so" in said and "another version" in said and "make setup" in said, said
x = torch.ones(1, 1, 2, 2)
ogive.attention(x, x, x, weight="tanh")
assert ogive.last_impl() == "reference" and compiled.supported() == []
try:
    ogive.attention(x, x, x, impl="native")
except ogive.errors.ImplUnavailable as error:
    print(error)
"""


def test_the_module_here_is_of_these_sources():
    """Fails, and does not skip, where kernels were changed and not compiled: build them."""
    if importlib.util.find_spec("ogive.kernels._native") is None:
        pytest.skip("no kernels were compiled here")
    assert compiled.missing is None, compiled.missing
    assert compiled._native.sources == fingerprint() is not None


@pytest.mark.parametrize("held", [{}, {"sources": "0" * 64}], ids=["none", "another"])
def test_an_older_module_is_refused_and_named(held):
    """It may lack anything, so that nothing but its fingerprint is asked for."""
    code = children.here() + ELSEWHERE.format(held=held)
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "make setup" in ran.stdout


def changed_name(folder: Path) -> None:
    (folder / "act.h").rename(folder / "acts.h")


def changed_byte(folder: Path) -> None:
    with (folder / "act.h").open("a") as file:
        file.write(" ")


def moved_byte(folder: Path) -> None:
    """From the end of one file to the start of the next."""
    one, two = sorted(folder.glob("*.h"))[:2]
    whole = one.read_bytes()
    one.write_bytes(whole[:-1])
    two.write_bytes(whole[-1:] + two.read_bytes())


def another_file(folder: Path) -> None:
    (folder / "zero.h").touch()


@pytest.mark.parametrize("change", [changed_name, changed_byte, moved_byte, another_file])
def test_any_change_of_the_sources_shows(change, tmp_path):
    folder = Path(shutil.copytree(FOLDER, tmp_path / "csrc"))
    assert fingerprint(folder) == fingerprint()
    change(folder)
    assert fingerprint(folder) != fingerprint()


def test_an_installation_without_sources_has_none_to_compare(tmp_path):
    assert fingerprint(tmp_path) is None
    assert fingerprint(tmp_path / "gone") is None

"""Rows of a study in, one self-contained web page out; torch is never imported here.

The names are fetched on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ogive.report.figures import forest
    from ogive.report.page import render_page, write_page

_HOMES = {
    "forest": "ogive.report.figures",
    "render_page": "ogive.report.page",
    "write_page": "ogive.report.page",
}

__all__ = ["forest", "render_page", "write_page"]


def __getattr__(name: str):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)

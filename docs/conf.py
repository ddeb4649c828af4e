"""Sphinx: Markdown pages, tables drawn from the code, formulas as MathML, no network."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

import ogive

project = "Ogive"
author = "The Ogive authors"
copyright = "The Ogive authors, Apache-2.0"
version = release = ogive.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathml",
    "measured",
    "tables",
]
exclude_patterns = ["_build"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = "Ogive"
html_static_path = ["_static"]
html_css_files = ["ogive.css"]
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False

# Docstrings are plain text with names in single backticks: those are code, and |x| is a size.
default_role = "code"
napoleon_use_ivar = True
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 80
nitpick_ignore_regex = [("py:class", r".*")]  # types in signatures live in torch, or on no page


def _keep_bars(app, what, name, obj, options, lines: list[str]) -> None:
    """Read |weights| as it is written, not as a substitution."""
    lines[:] = [line.replace("|", r"\|") for line in lines]


def setup(app) -> None:
    app.connect("autodoc-process-docstring", _keep_bars)

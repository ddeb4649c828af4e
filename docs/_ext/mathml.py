"""Formulas as MathML, which every browser draws by itself: no script, no font from elsewhere."""

from __future__ import annotations

import re

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx

_LETTERS = re.compile(r'(?:<mi mathvariant="normal">[A-Za-z]</mi>){2,}')


def mathml(latex: str, display: str = "inline") -> str:
    """A formula as a <math> element; a word such as softmax is one identifier, not letters."""
    return _LETTERS.sub(
        lambda run: f'<mi mathvariant="normal">{re.sub("<[^>]*>", "", run.group())}</mi>',
        convert(latex, display=display),
    )


def _inline(translator, node):
    translator.body.append(mathml(node.astext()))
    raise nodes.SkipNode


def _block(translator, node):
    translator.body.append(f'<div class="math">{mathml(node.astext(), "block")}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}

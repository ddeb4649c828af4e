"""Tables drawn from the code: `{parts} weight`, `{presets}`. Nothing to keep in step by hand."""

from __future__ import annotations

import inspect
from dataclasses import fields

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ogive.parts import Facts, Part, build, catalogue, presets


class PartsTable(SphinxDirective):
    """Every member of a family: how it is written, its formula, where it comes from, its facts."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        members = catalogue(self.arguments[0])
        rows = [
            [
                [nodes.literal(text=_signature(member)), _plain(_sentence(member))],
                [nodes.math(text=member.formula, latex=member.formula)],
                [_plain(member.source), _plain(_facts(name, member), "ogive-facts")],
            ]
            for name, member in members.items()
        ]
        return [_table(["part", "formula", "source and facts"], rows)]


class PresetsTable(SphinxDirective):
    """Every published mechanism: its name, what sits where, its formula and its source."""

    def run(self) -> list[nodes.Node]:
        rows = [
            [
                [
                    nodes.literal(text=name),
                    _plain(preset.source),
                    _plain(preset.note, "ogive-facts"),
                ],
                [
                    nodes.math(text=preset.formula, latex=preset.formula),
                    *[nodes.literal(text=site) for site in str(preset).split()],
                ],
            ]
            for name, preset in presets.items()
        ]
        return [_table(["preset and its source", "formula, and what sits where"], rows)]


def _signature(member: type[Part]) -> str:
    """The written form with every argument that it may take."""
    takes = [
        name if parameter.default is parameter.empty else f"{name}={_written(parameter.default)}"
        for name, parameter in inspect.signature(member).parameters.items()
    ]
    return f"{member.name}({', '.join(takes)})" if takes else member.name


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _sentence(member: type[Part]) -> str:
    """The first paragraph of the docstring, on one line."""
    return " ".join(inspect.cleandoc(member.__doc__ or "").partition("\n\n")[0].split())


def _facts(name: str, member: type[Part]) -> str:
    """The declared facts in words; where an argument decides them, those of the example."""
    declared = build(member.family, member.example or name).facts
    words = [_fact(field.name, getattr(declared, field.name)) for field in fields(Facts)]
    listed = ", ".join(word for word in words if word)
    return f"{member.example}: {listed}" if member.example and listed else listed


def _fact(name: str, value: object) -> str:
    if isinstance(value, bool) or value is None:
        return name.replace("_", " ") if value else ""
    return f"{name} {value:g}"


def _plain(text: str, kind: str = "") -> nodes.paragraph:
    return nodes.paragraph(text=text, classes=[kind] if kind else [])


def _table(heads: list[str], rows: list[list[list[nodes.Node]]]) -> nodes.table:
    table = nodes.table(classes=["ogive-table"])
    group = nodes.tgroup(cols=len(heads))
    group += [nodes.colspec(colwidth=1) for _ in heads]
    group += nodes.thead("", _row([[_plain(head)] for head in heads]))
    group += nodes.tbody("", *[_row(row) for row in rows])
    table += group
    return table


def _row(cells: list[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *[nodes.entry("", *_paragraphs(cell)) for cell in cells])


def _paragraphs(cell: list[nodes.Node]) -> list[nodes.Node]:
    """Block nodes only: code and formulas stand in a paragraph of their own."""
    wrapped = [n if isinstance(n, nodes.paragraph) else nodes.paragraph("", "", n) for n in cell]
    return [paragraph for paragraph in wrapped if paragraph.astext()]


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("parts", PartsTable)
    app.add_directive("presets", PresetsTable)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

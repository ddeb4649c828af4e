"""Tables of what the benchmarks wrote: `{measured} attention`. Nothing is copied by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from tables import _plain, _table

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
NUMBERS = ("ms", "ratio", "share", "peak_gflops", "mib", "contender")
"""What a row tells; everything else in it says of which call."""


def read(name: str) -> dict[str, Any] | None:
    """A results file, or None where nothing was measured yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def pivot(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """One line a call: ours in milliseconds with its share of peak, then every peer's ratio."""
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in rows:
        labels = {key: str(value) for key, value in row.items() if key not in NUMBERS}
        line = lines.setdefault(tuple(labels.items()), labels)
        if "mib" in row:
            fits = row["mib"] is not None
            line[f"{row['contender']}, MiB"] = f"{row['mib']:.0f}" if fits else "does not fit"
        elif "ratio" not in row:
            continue  # a plain table: every column says of what
        elif row["ratio"] == [1.0, 1.0, 1.0]:
            share = "" if row["share"] is None else f" ({100 * row['share']:.0f} % of peak)"
            line[f"{row['contender']}, ms"] = f"{row['ms'][1]:.3g}{share}"
        else:
            line[f"× {row['contender']}"] = f"{row['ratio'][1]:.2f}"
    return list(lines.values())


def tables(rows: list[dict[str, Any]]) -> list[tuple[list[str], list[list[str]]]]:
    """Heads and cells; lines whose columns share no call's labels stand in tables of their own."""
    found: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row, line in zip(rows, _lines_of(rows), strict=True):
        key = tuple(k for k in row if k not in NUMBERS) + (("mib",) if "mib" in row else ())
        group = found.setdefault(key, [])
        if line not in group:
            group.append(line)
    made = []
    for group in found.values():
        heads = list(dict.fromkeys(head for line in group for head in line))
        made.append((heads, [[line.get(head, "") for head in heads] for line in group]))
    return made


def _lines_of(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """For each row the line that it went into."""
    labelled = {tuple((k, str(r[k])) for k in r if k not in NUMBERS): None for r in rows}
    by_label = dict(zip(labelled, pivot(rows), strict=True))
    return [by_label[tuple((k, str(r[k])) for k in r if k not in NUMBERS)] for r in rows]


class Measured(SphinxDirective):
    """The tables of one results file, where `where` may ask for rows with some labels."""

    required_arguments = 1
    option_spec: ClassVar = {"where": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        kept = read(self.arguments[0])
        self.env.note_dependency(str(RESULTS / f"{self.arguments[0]}.json"))
        if kept is None:
            command = f"python benchmarks/{self.arguments[0]}.py"
            return [_plain(f"Not measured yet: {command} writes it.")]
        wanted = [term.split("=") for term in self.options.get("where", "").split(";") if term]
        rows = [
            row
            for row in kept["rows"]
            if all(str(row.get(key.strip())) == value.strip() for key, value in wanted)
        ]
        made: list[nodes.Node] = [_plain(told(kept), "ogive-facts")]
        for heads, cells in tables(rows):
            body = [[[_plain(cell)] for cell in line] for line in cells]
            made.append(_table(heads, body))
        return made


def told(kept: dict[str, Any]) -> str:
    """Where, when and by which command it was measured."""
    machine = kept["machine"]
    return (
        f"{kept['command']}, {kept['date']}: {machine['processor']}, Ogive "
        f"{machine['instruction_set']}, torch {machine['torch']} {machine['vectors']}. "
        f"{kept.get('note', '')}"
    ).strip()


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

"""Draws the roofline of one core with every contender on it: docs/images/roofline.svg.

    python docs/draw_roofline.py            write the drawing
    python docs/draw_roofline.py --check    fail where the drawing is not what this script draws

From benchmarks/results/attention.json: the plain calls at the largest length on one thread. How
high a point stands was measured. How far to the right is arithmetic: useful operations over the
bytes that must pass through memory at least. A fused kernel reads queries, keys and values and
writes its output; eager code also writes and reads (queries × keys) tensors, once each for the
product, the scaled scores and the weights, and once less for each pair that a compiler fuses.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TARGET = HERE / "images" / "roofline.svg"
RESULTS = HERE.parent / "benchmarks" / "results" / "attention.json"
HEADS, WIDTH = 8, 64  # of benchmarks/attention.py
VIEW = (860, 470)
BOX = (70, 24, 600, 410)  # left, top, right, bottom of the axes
PASSES = {"eager": 6, "eager compiled": 4, "x-transformers": 6, "entmax": 8, "ogive auto": None}
FORMS = {"ogive native": "ours", "F.sdpa": "sdpa", "eager": "eager", "eager compiled": "compiled"}

STYLE = """
  text { font-family: ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
         font-size: 14px; fill: #1d2733; }
  .small { font-size: 12.5px; fill: #5b6776; }
  .card { fill: #ffffff; stroke: #d8dee6; }
  .grid { stroke: #e7ebf0; }
  .roof { fill: none; stroke: #6b7785; stroke-width: 2; }
  .ours { fill: #b6275f; stroke: #b6275f; }
  .sdpa { fill: #1f78b4; stroke: #1f78b4; }
  .eager { fill: none; stroke: #b8720b; stroke-width: 2; }
  .compiled { fill: #b8720b; stroke: #b8720b; }
  .other { fill: none; stroke: #5b6776; stroke-width: 2; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6ebf1; }
    .small { fill: #a3afbd; }
    .card { fill: #14181d; stroke: #2c343d; }
    .grid { stroke: #262d35; }
    .roof { stroke: #8d9aa8; }
    .ours { fill: #f0709f; stroke: #f0709f; }
    .sdpa { fill: #5fb0ea; stroke: #5fb0ea; }
    .eager { stroke: #e6a542; }
    .compiled { fill: #e6a542; stroke: #e6a542; }
    .other { stroke: #a3afbd; }
  }
"""


def points(kept: dict[str, Any]) -> tuple[list[dict[str, Any]], float]:
    """Contenders with their intensity (operations a byte) and rate (GFLOP/s); and the peak."""
    rows = [r for r in kept["rows"] if r["threads"] == 1 and r["mask"] == "none"]
    length = max(r["length"] for r in rows)
    rows = [r for r in rows if r["length"] == length]
    found = []
    for row in rows:
        name = row["contender"].split(" (")[0]
        if "(" in row["contender"] or PASSES.get(name, 0) is None:
            continue  # what computes something else, and what is another one's choice
        operations = 4.0 * HEADS * length * length * WIDTH
        moved = 16.0 * HEADS * length * WIDTH + 4.0 * HEADS * length**2 * PASSES.get(name, 0)
        found.append(
            {
                "name": name,
                "weight": row["weight"].split("(")[0],
                "length": length,
                "intensity": operations / moved,
                "rate": row["share"] * row["peak_gflops"],
            }
        )
    return found, max(r["peak_gflops"] for r in rows)


class Axes:
    """Both logarithmic: operations a byte to the right, GFLOP/s up."""

    def __init__(self, peak: float, right: float) -> None:
        self.right = 10 ** math.ceil(math.log10(right * 1.2))
        self.top = 10 ** math.ceil(math.log10(peak * 1.3))
        self.left, self.bottom = 1.0, self.top / 1000

    def at(self, intensity: float, rate: float) -> tuple[float, float]:
        """Pixels."""
        across = math.log10(intensity / self.left) / math.log10(self.right / self.left)
        up = math.log10(max(rate, self.bottom) / self.bottom) / math.log10(self.top / self.bottom)
        x, y = BOX[0] + across * (BOX[2] - BOX[0]), BOX[3] - up * (BOX[3] - BOX[1])
        return round(x, 1), round(y, 1)


def text(x: float, y: float, body: str, kind: str = "", anchor: str = "start") -> str:
    """Words with their baseline at y."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{body}</text>'


def grid(axes: Axes) -> list[str]:
    """A line for each power of ten, with its number."""
    drawn = []
    power = axes.left
    while power <= axes.right * 1.001:
        x, _ = axes.at(power, axes.top)
        drawn.append(f'<line x1="{x}" y1="{BOX[1]}" x2="{x}" y2="{BOX[3]}" class="grid"/>')
        drawn.append(text(x, BOX[3] + 18, f"{power:g}", "small", "middle"))
        power *= 10
    power = axes.bottom
    while power <= axes.top * 1.001:
        _, y = axes.at(axes.left, power)
        drawn.append(f'<line x1="{BOX[0]}" y1="{y}" x2="{BOX[2]}" y2="{y}" class="grid"/>')
        drawn.append(text(BOX[0] - 8, y + 4, f"{power:g}", "small", "end"))
        power *= 10
    middle = (BOX[0] + BOX[2]) / 2
    drawn.append(text(middle, BOX[3] + 40, "useful operations a byte of memory", "", "middle"))
    drawn.append(text(BOX[0], BOX[1] - 8, "GFLOP/s, one thread"))
    return drawn


def roof(axes: Axes, peak: float, copies: float) -> list[str]:
    """What memory lets through, up to what multiply-adds reach."""
    ridge = peak / copies
    corners = [(axes.left, copies * axes.left), (ridge, peak), (axes.right, peak)]
    path = " L".join(f"{x} {y}" for x, y in (axes.at(*corner) for corner in corners))
    x, y = axes.at(axes.right, peak)
    told = text(x - 6, y - 8, f"multiply-adds: {peak:.0f} GFLOP/s", "small", "end")
    memory = text(
        *axes.at(axes.left * 1.15, copies * axes.left), f"memory: {copies:.0f} GB/s", "small"
    )
    return [f'<path d="M{path}" class="roof"/>', told, memory]


def marks(axes: Axes, found: list[dict[str, Any]]) -> list[str]:
    """A mark for each contender and weight function, with its words as a title."""
    drawn = []
    for point in found:
        x, y = axes.at(point["intensity"], point["rate"])
        kind = FORMS.get(point["name"], "other")
        words = f"{point['name']}, {point['weight']}: {point['rate']:.0f} GFLOP/s"
        drawn.append(
            f'<g class="{kind}"><title>{words}</title><circle cx="{x}" cy="{y}" r="5"/></g>'
        )
    return drawn


def legend(found: list[dict[str, Any]]) -> list[str]:
    """Contenders, best first, with the rates that they reach."""
    drawn, y = [], BOX[1] + 14
    names = dict.fromkeys(p["name"] for p in sorted(found, key=lambda p: -p["rate"]))
    for name in names:
        rates = sorted(p["rate"] for p in found if p["name"] == name)
        span = f"{rates[0]:.0f}" if len(rates) == 1 else f"{rates[0]:.0f} to {rates[-1]:.0f}"
        kind = FORMS.get(name, "other")
        drawn.append(f'<circle cx="{BOX[2] + 24}" cy="{y - 5}" r="5" class="{kind}"/>')
        drawn.append(text(BOX[2] + 38, y, name))
        drawn.append(text(BOX[2] + 38, y + 17, f"{span} GFLOP/s", "small"))
        y += 46
    return drawn


def drawing() -> str:
    """The whole file."""
    kept = json.loads(RESULTS.read_text())
    found, peak = points(kept)
    axes = Axes(peak, max(p["intensity"] for p in found))
    title = f"Attention forward, {found[0]['length']} queries and keys, on the roofline of one core"
    parts = [
        f'<rect x=".5" y=".5" width="{VIEW[0] - 1}" height="{VIEW[1] - 1}" rx="10" class="card"/>',
        *grid(axes),
        *roof(axes, peak, kept["machine"]["copy_gb_per_s"]),
        *marks(axes, found),
        *legend(found),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {VIEW[0]} {VIEW[1]}" role="img" '
        f'aria-labelledby="title">\n<title id="title">{title}</title>\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main() -> int:
    """Write the drawing, or say whether the one on disk is up to date."""
    if "--check" not in sys.argv[1:]:
        TARGET.write_text(drawing())
        return 0
    if TARGET.exists() and TARGET.read_text() == drawing():
        return 0
    print(f"{TARGET.name} is not what the results give: run python {sys.argv[0]}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())

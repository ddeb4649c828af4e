"""Draws attention with its sites named: docs/images/sites.svg.

    python docs/draw_sites.py            write the drawing
    python docs/draw_sites.py --check    fail where the drawing is not what this script draws

Text and shapes only, so that the file is small, diffs are readable, and light and dark mode are
one file. A site's colour and sign tell its family: map, score or weight.
"""

from __future__ import annotations

import sys
from pathlib import Path

TARGET = Path(__file__).parent / "images" / "sites.svg"
WIDTH, HEIGHT = 1056, 446

QUERY, KEY, VALUE = 104, 206, 340  # the three rows
MIDDLE = (QUERY + KEY) / 2  # where queries meet keys

STYLE = """
  text { font-family: ui-sans-serif, system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
         font-size: 16px; fill: #1d2733; }
  .name { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
          font-size: 17px; font-weight: 600; }
  .small { font-size: 13.5px; fill: #5b6776; }
  .symbol { font-style: italic; font-family: Georgia, "Times New Roman", "DejaVu Serif", serif;
            font-size: 19px; }
  .card { fill: #ffffff; stroke: #d8dee6; }
  .head { fill: #f3f6f9; stroke: #c9d2dc; stroke-dasharray: 5 4; }
  .plain { fill: #ffffff; stroke: #8793a1; stroke-width: 1.4; }
  .wire { fill: none; stroke: #6b7785; stroke-width: 1.6; }
  .tip { fill: #6b7785; }
  .site { stroke-width: 1.8; }
  .sign { fill: none; stroke-width: 2.4; stroke-linecap: round; stroke-linejoin: round; }
  .map .site { fill: #e3f1fb; stroke: #1f78b4; }
  .map .sign { stroke: #1f78b4; }
  .score .site { fill: #fdf0d9; stroke: #b8720b; }
  .score .sign { stroke: #b8720b; }
  .weight .site { fill: #fbe4ec; stroke: #b6275f; }
  .weight .sign { stroke: #b6275f; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6ebf1; }
    .small { fill: #a3afbd; }
    .card { fill: #14181d; stroke: #2c343d; }
    .head { fill: #1b2127; stroke: #3d4854; }
    .plain { fill: #14181d; stroke: #8491a0; }
    .wire { stroke: #8d9aa8; }
    .tip { fill: #8d9aa8; }
    .map .site { fill: #12304a; stroke: #5fb0ea; }
    .map .sign { stroke: #5fb0ea; }
    .score .site { fill: #3c2a0c; stroke: #e6a542; }
    .score .sign { stroke: #e6a542; }
    .weight .site { fill: #431728; stroke: #f0709f; }
    .weight .sign { stroke: #f0709f; }
  }
"""

# One sign per family, drawn in a box of 24 × 20: a hinge, two lines that meet, an ogive.
SIGNS = {
    "map": "M0 17 H10 L23 3",
    "score": "M2 3 L22 17 M2 17 L22 3",
    "weight": "M0 18 C15 18 8 2 23 2",
}


def text(x: float, y: float, body: str, kind: str = "", anchor: str = "middle") -> str:
    """Words with their baseline at y."""
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" class="{kind}">{body}</text>'


def below(symbol: str, index: str, after: str = "") -> str:
    """A symbol with an index, as in W_q, and what follows it on the line."""
    rest = f'<tspan dy="-5">{after}</tspan>' if after else ""
    return f'{symbol}<tspan dy="5" font-size="13">{index}</tspan>{rest}'


def upright(word: str) -> str:
    """A function's name among symbols."""
    return f'<tspan font-style="normal">{word}</tspan>'


def box(x: float, y: float, width: float, height: float, label: str) -> str:
    """Something fixed: a linear map, an input, an output. x is the left edge, y the middle."""
    corner = f'x="{x:g}" y="{y - height / 2:g}" width="{width:g}" height="{height:g}"'
    words = text(x + width / 2, y + 6, label, "symbol")
    return f'<rect {corner} rx="5" class="plain"/>{words}'


def site(x: float, y: float, name: str, family: str, examples: str) -> str:
    """A site, 116 wide: its family's sign, its name, and what may sit there."""
    sign = f'<path transform="translate({x + 13:g} {y - 10:g})" d="{SIGNS[family]}" class="sign"/>'
    return (
        f'<g class="{family}"><rect x="{x:g}" y="{y - 20:g}" width="116" height="40" rx="20" '
        f'class="site"/>{sign}</g>'
        + text(x + 75, y + 5.5, name, "name")
        + text(x + 58, y + 39, examples, "small")
    )


def arrow(*points: tuple[float, float]) -> str:
    """A wire along the points, with a tip at its end."""
    path = "M" + " L".join(f"{x:g} {y:g}" for x, y in points)
    (x0, y0), (x, y) = points[-2:]
    turn = {(True, False): 0, (False, True): 90}[(x > x0, y > y0)]
    place = f"translate({x:g} {y:g}) rotate({turn})"
    tip = f'<path transform="{place}" d="M0 0 L-8 -4.5 V4.5 Z" class="tip"/>'
    return f'<path d="{path}" class="wire"/>{tip}'


def projections() -> list[str]:
    """The inputs, the three linear maps and their sites."""
    drawn = [
        box(24, QUERY, 44, 56, "x"),
        box(24, (KEY + VALUE) / 2, 44, VALUE - KEY + 56, ""),
        text(46, (KEY + VALUE) / 2 - 6, "x", "symbol"),
        text(46, (KEY + VALUE) / 2 + 13, "or", "small"),
        text(46, (KEY + VALUE) / 2 + 33, "m", "symbol"),
        text(46, VALUE + 50, "memory", "small"),
    ]
    rows = [
        (QUERY, "q", "query", "gelu, rmsnorm"),
        (KEY, "k", "key", "gelu, conv(4)"),
        (VALUE, "v", "value", "gelu, glu(silu)"),
    ]
    for y, index, name, examples in rows:
        drawn += [
            arrow((68, y), (98, y)),
            box(98, y, 48, 40, below("W", index)),
            arrow((146, y), (190, y)),
            site(190, y, name, "map", examples),
        ]
    return drawn


def operation() -> list[str]:
    """Scores, weights, and the weighted sum of the values."""
    return [
        arrow((306, QUERY), (346, QUERY), (346, MIDDLE - 8), (382, MIDDLE - 8)),
        arrow((306, KEY), (346, KEY), (346, MIDDLE + 8), (382, MIDDLE + 8)),
        text(318, QUERY - 9, "rotary positions", "small", "start"),
        site(382, MIDDLE, "score", "score", "dot, additive(tanh)"),
        arrow((498, MIDDLE), (544, MIDDLE)),
        site(544, MIDDLE, "weight", "weight", ""),
        text(612, MIDDLE + 39, "softmax, tanh", "small", "start"),
        text(602, QUERY - 29, "mask", ""),
        arrow((602, QUERY - 20), (602, MIDDLE - 20)),
        arrow((602, MIDDLE + 20), (602, VALUE - 17)),
        arrow((306, VALUE), (585, VALUE)),
        f'<circle cx="602" cy="{VALUE}" r="17" class="plain"/>',
        text(602, VALUE + 6, "Σ", ""),
        text(592, VALUE - 40, below("w", "ij"), "symbol", "end"),
        text(446, VALUE - 11, below("v", "j"), "symbol"),
    ]


def way_out() -> list[str]:
    """From the weighted sum to the layer's output."""
    return [
        arrow((619, VALUE), (642, VALUE)),
        site(642, VALUE, "mixed", "map", "gate(sigmoid)"),
        arrow((758, VALUE), (794, VALUE)),
        box(794, VALUE, 48, 40, below("W", "o")),
        arrow((842, VALUE), (866, VALUE)),
        site(866, VALUE, "output", "map", "silu"),
        arrow((982, VALUE), (1006, VALUE)),
        text(1021, VALUE + 6, "y", "symbol"),
    ]


def formulas() -> list[str]:
    """The same in symbols."""
    lines = [
        below(
            "s",
            "ij",
            f"&#8201;= {upright('score')}(" + below("q", "i", ",&#8201;" + below("k", "j", ")")),
        ),
        below(
            "w",
            "ij",
            f"&#8201;= {upright('weight')}("
            + below("s", "i", ", " + upright("mask") + ")" + below("", "j")),
        ),
        below(
            "o",
            "i",
            f"&#8201;= {upright('mixed')}(Σ"
            + below("", "j", below("w", "ij", "&#8201;" + below("v", "j", ")"))),
        ),
    ]
    return [
        text(806, QUERY - 8 + 30 * row, line, "symbol", "start") for row, line in enumerate(lines)
    ]


def legend() -> list[str]:
    """What the colours and signs mean."""
    families = [
        (168, "map", "map: tensor to tensor"),
        (372, "score", "score: queries and keys to scores"),
        (652, "weight", "weight: a row of scores to weights"),
    ]
    drawn = []
    for x, family, means in families:
        sign = f'<path transform="translate({x} {HEIGHT - 38})" d="{SIGNS[family]}" class="sign"/>'
        drawn.append(
            f'<g class="{family}">{sign}</g>' + text(x + 34, HEIGHT - 23, means, "small", "start")
        )
    return drawn


def drawing() -> str:
    """The whole file."""
    head = f'<rect x="168" y="26" width="606" height="{VALUE + 32}" rx="12" class="head"/>'
    parts = [
        f'<rect x=".5" y=".5" width="{WIDTH - 1}" height="{HEIGHT - 1}" rx="10" class="card"/>',
        head,
        text(182, 47, "in each head", "small", "start"),
        *projections(),
        *operation(),
        *way_out(),
        *formulas(),
        *legend(),
    ]
    title = "Attention with its sites: query, key, value, score, weight, mixed and output"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-labelledby="title">\n<title id="title">{title}</title>\n<style>{STYLE}</style>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def main() -> int:
    """Write the drawing, or say whether the one on disk is up to date."""
    if "--check" not in sys.argv[1:]:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(drawing())
        return 0
    if TARGET.exists() and TARGET.read_text() == drawing():
        return 0
    print(
        f"{TARGET.name} is not what {Path(__file__).name} draws: run python {sys.argv[0]}",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    sys.exit(main())

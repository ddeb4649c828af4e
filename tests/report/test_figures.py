"""Figures: marks without colour, ids without clashes, words without markup, both themes legible."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest

from ogive.errors import ArgumentError
from ogive.lab import compare
from ogive.report import forest
from ogive.report.cards import draw_pairs, score_scales
from ogive.report.evidence import gather
from ogive.report.figures import draw_forest
from ogive.report.palette import MARKS, PALETTE
from ogive.report.scale import Scale, around, around_zero
from ogive.report.text import clean
from report import sample
from report.payloads import PAYLOADS

SVG = "{http://www.w3.org/2000/svg}"


def one(variant="gelu on value", effect=-0.03, half=0.01, **changes):
    """A comparison as far as the forest plot looks at it."""
    plain = {
        "task": "text",
        "variant": variant,
        "control": False,
        "metric": "nats per byte",
        "higher_is_better": False,
        "margin": 0.01,
        "verdict": "better",
        "effect": effect,
        "low": effect - half,
        "high": effect + half,
        "n": 6,
    }
    return SimpleNamespace(**(plain | changes))


def words(svg: str) -> list[str]:
    return [element.text for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def shapes(svg: str, verdict: str) -> set[tuple[str, str]]:
    """Outline and filling of the mark that stands for a verdict (the last one used)."""
    root = ElementTree.fromstring(svg)
    paths = {path.get("id"): path.get("d") for path in root.iter(f"{SVG}path")}
    uses = [use for use in root.iter(f"{SVG}use") if f"s-{verdict}" in use.get("class", "")]
    return {
        (paths[use.get("href")[1:]], re.search(r"f-(\w+)", use.get("class")).group(1))
        for use in uses
    }


def test_verdicts_are_told_apart_without_colour():
    seen = {verdict: shapes(forest([one(verdict=verdict)]), verdict) for verdict in MARKS}
    assert all(len(found) == 1 for found in seen.values())
    outlines = {next(iter(found))[0] for found in seen.values()}
    assert len(outlines) == 4
    assert {verdict: next(iter(found))[1] == verdict for verdict, found in seen.items()} == {
        verdict: mark.filled for verdict, mark in MARKS.items()
    }
    for verdict, mark in MARKS.items():
        assert f"{mark.symbol} {verdict} · 6 seeds" in words(forest([one(verdict=verdict)]))
    assert len({mark.symbol for mark in MARKS.values()}) == 4


@pytest.mark.parametrize(
    ("higher", "left", "right"), [(False, "◀ better", "worse ▶"), (True, "◀ worse", "better ▶")]
)
def test_direction_is_written_on_its_side(higher, left, right):
    root = ElementTree.fromstring(forest([one(higher_is_better=higher)]))
    place = {text.text: float(text.get("x")) for text in root.iter(f"{SVG}text")}
    assert place[left] < place["baseline"] < place[right]


@pytest.mark.parametrize("narrow", [False, True])
def test_numbers_margin_and_unit_are_written(narrow):
    said = " ".join(words(forest([one()], narrow=narrow)))
    assert "−0.030 [−0.040, −0.020]" in " ".join(said.split())
    assert "shaded: equivalent within ±0.01" in said
    assert "difference from the baseline, nats per byte" in said


def position(svg: str, verdict: str) -> float:
    root = ElementTree.fromstring(svg)
    return next(
        float(use.get("x"))
        for use in root.iter(f"{SVG}use")
        if f"s-{verdict}" in use.get("class", "")
    )


def test_marks_stand_where_their_numbers_say():
    rows = [
        one("a", -0.02, verdict="better"),
        one("b", 0.0, verdict="equivalent"),
        one("c", 0.03, verdict="worse"),
    ]
    svg = forest(rows)
    at = [position(svg, verdict) for verdict in ("better", "equivalent", "worse")]
    baseline = next(
        float(text.get("x"))
        for text in ElementTree.fromstring(svg).iter(f"{SVG}text")
        if text.text == "baseline"
    )
    assert at[1] == pytest.approx(baseline, abs=0.02)
    assert (at[2] - at[1]) / (at[1] - at[0]) == pytest.approx(1.5, abs=0.01)


def test_far_interval_ends_in_an_arrow_and_leaves_room_for_the_others():
    near = [one(str(number), 0.01 * number, verdict="undecided") for number in range(-3, 4)]
    far = one("far", 4.0, 0.1, verdict="worse")
    svg = forest([*near, far])
    assert "+4.00" in " ".join(words(svg)) or "+4.000" in " ".join(words(svg))
    root = ElementTree.fromstring(svg)
    arrows = [use for use in root.iter(f"{SVG}use") if "f-worse" in use.get("class", "")]
    assert len(arrows) == 1  # the arrow head; no mark pretends to be at the edge
    alone = ElementTree.fromstring(forest(near))
    spread = [
        np.ptp(
            [
                float(use.get("x"))
                for use in tree.iter(f"{SVG}use")
                if "s-undecided" in use.get("class", "")
            ]
        )
        for tree in (root, alone)
    ]
    assert spread[0] > 0.5 * spread[1]


@pytest.mark.parametrize(
    "hole",
    [
        {"low": math.nan, "high": math.nan, "n": 1},
        {"low": math.nan, "high": math.nan, "effect": math.nan, "n": 0},
    ],
)
def test_missing_numbers_leave_a_row_without_an_interval(hole):
    svg = forest([one(), one("bare", verdict="undecided", **hole)])
    assert "bare" in words(svg)
    assert len(shapes(svg, "undecided")) == hole["n"]


def test_no_rows_give_an_empty_drawing():
    assert ElementTree.fromstring(forest([])).get("viewBox")


def test_two_tasks_in_one_plot_are_refused():
    with pytest.raises(ArgumentError, match="recall, text"):
        forest([one(), one(task="recall")])


def test_controls_come_last_under_their_own_head():
    root = ElementTree.fromstring(forest([one("check", control=True), one("candidate")]))
    height = {text.text: float(text.get("y")) for text in root.iter(f"{SVG}text")}
    assert height["candidate"] < height["controls"] < height["check"]
    assert "controls" not in words(forest([one("candidate")]))


@pytest.mark.parametrize("payload", PAYLOADS, ids=range(len(PAYLOADS)))
def test_words_reach_the_drawing_as_words(payload):
    drawing = draw_forest([one(payload)], unit=payload, sites={payload: payload}, standalone=True)
    root = ElementTree.fromstring(drawing.svg)
    assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
        "svg",
        "title",
        "desc",
        "style",
        "rect",
        "g",
        "path",
        "text",
        "use",
        "defs",
        "clipPath",
    }
    assert not [name for element in root.iter() for name in element.attrib if name.startswith("on")]
    assert clean(payload) in next(iter(drawing.tips.values()))
    shown = " ".join(clean(payload).split())
    assert any(
        text
        and (
            text == shown
            or (text.endswith("…") and shown.startswith(text.removesuffix("…").rstrip()))
        )
        for text in words(drawing.svg)
    )


def test_same_comparisons_same_bytes_whatever_the_user_prefers():
    comparisons = compare(sample.spec(), sample.rows(tuning=False))
    before = forest(comparisons)
    with matplotlib.rc_context(
        {
            "svg.fonttype": "path",
            "axes.facecolor": "red",
            "font.size": 30,
            "lines.linewidth": 9,
            "text.usetex": True,
        }
    ):
        assert forest(comparisons) == before
        assert matplotlib.rcParams["font.size"] == 30
    assert forest(comparisons) == before
    assert forest([dataclasses.replace(comparisons[0], effect=1.0)]) != before


def test_inlined_figures_carry_no_style_and_no_date():
    svg = forest([one()], standalone=False)
    assert "style" not in svg
    assert "matplotlib" not in svg.lower()
    assert "#0b6e66" in svg  # the colour a viewer without the page's variables falls back on
    assert "prefers-color-scheme:dark" in forest([one()])


def test_two_figures_share_no_id():
    first, second = (set(re.findall(r'id="([^"]*)"', forest([one()], key=key))) for key in "ab")
    assert first
    assert not first & second


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize(
    ("theme", "ground", "role"),
    list(itertools.product((0, 1), ("paper", "card"), ("ink", "muted", *MARKS))),
)
def test_words_are_legible_in_both_themes(theme, ground, role):
    """Contrast of at least 4.5 to 1, as WCAG 2.2 asks of text (success criterion 1.4.3)."""
    light, dark = sorted((luminance(PALETTE[ground][theme]), luminance(PALETTE[role][theme])))
    assert (dark + 0.05) / (light + 0.05) >= 4.5


# --- scales ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high"), [(0, 1), (-0.004, 0.0007), (2.35, 2.45), (-1e-7, 1e-7), (1e6, 3e6)]
)
def test_ticks_are_round_and_written_as_they_are(low, high):
    scale = Scale(low, high, 0, 100)
    ticks = scale.ticks(4)
    assert 2 <= len(ticks) <= 6
    for value, written in ticks:
        assert low <= value <= high
        assert float(written.replace("−", "-").replace(",", "")) == pytest.approx(value, abs=1e-12)


def test_scale_runs_either_way():
    scale = Scale(0, 10, 200, 100)
    assert scale(2.5) == 175
    assert scale([0, 10]).tolist() == [200, 100]
    assert (scale.inside(-3), scale.inside(4), scale.inside(30)) == (0, 4, 10)


@pytest.mark.parametrize("values", [[], [5.0], [0.0, 0.0], [math.nan, math.inf]])
def test_scale_of_nearly_nothing_still_has_a_width(values):
    scale = around(values, 0, 1)
    assert scale.high > scale.low
    assert math.isfinite(scale.high - scale.low)


def test_scale_around_zero_holds_zero_and_the_margin():
    scale = around_zero([(3.0, 4.0)], 0.5, 0, 1)
    assert scale.low < -0.5
    assert scale.high > 4.0


@pytest.mark.parametrize("task", ["text", "recall"])
@pytest.mark.parametrize(
    ("variant", "won"), [("sigmoid gate on mixed", 6), ("constant gate on value", 0)]
)
def test_seeds_are_won_on_the_good_side(task, variant, won):
    evidence = gather(sample.spec(tasks=(task,)), sample.rows(tasks=(task,), tuning=False))[0]
    scale = score_scales(evidence, [variant])[variant]
    drawing = draw_pairs(evidence, variant, None, scale, key="pairs")
    said = [text.text for text in ElementTree.fromstring(drawing.svg).iter("text")]
    assert f"better with {won} of 6 seeds" in said
    assert drawing.svg.count("stroke-dasharray") == 6 - won  # dashed where the baseline won
    assert len(drawing.tips) == 6

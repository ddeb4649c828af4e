"""The rows of attention: drawn from what a trial kept, in its place, and never run."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from ogive.report import render_page
from ogive.report.evidence import gather
from ogive.report.rows import draw_rows, pictured
from report import sample
from report.payloads import PAYLOADS

PICTURE = {
    "columns": ["4", ".", " ", "März"],
    "rows": ["0", "4", "∎"],
    "weights": [[0.9, 0.1, 0.0, 0.0], [0.5, -0.25, 0.25, 0.0], [0.0, 0.0, 0.0, 1.0]],
}


def with_picture(picture, seed=0):
    """A finished study in which one variant's trials kept a picture."""
    spec, rows, comparisons = sample.study()
    for row in rows:
        if row.variant == "gelu on value" and row.role == "compare" and row.seed >= seed:
            row.result["picture"] = picture
    return spec, rows, comparisons


def trial_of(picture):
    spec, rows, _ = with_picture(picture)
    return pictured(gather(spec, rows)[0], "gelu on value")


def cells(drawing):
    """(x, y, opacity, classes) of every square."""
    found = []
    for element in ElementTree.fromstring(drawing.svg).iter("path"):
        if element.get("opacity") or element.get("fill-opacity"):
            numbers = element.get("d").replace("M", "").replace("L", "").split()[:2]
            found.append((*map(float, numbers), element.get("class")))
    return found


def test_a_page_shows_the_rows_that_were_kept():
    page = render_page(*with_picture(PICTURE))
    assert "Where it looks" in page
    assert "4 from 4 0.50, . −0.25, " in page
    assert page.count("rows of attention") >= 1


def test_a_study_without_pictures_has_no_such_section():
    assert "Where it looks" not in render_page(*sample.study())


def test_each_weight_is_a_square_in_its_place():
    """Zeros are left blank, the heaviest needs no opacity, and the negative weight is in rust."""
    drawn = cells(draw_rows(trial_of(PICTURE), key="k"))
    assert [(int(x), int(y)) for x, y, _ in drawn] == [
        (70, 62),
        (85, 62),
        (70, 77),
        (85, 77),
        (100, 77),
    ]
    assert [classes for _, _, classes in drawn].index("f-worse") == 3


def test_the_first_seed_that_kept_one_is_drawn():
    spec, rows, _ = with_picture(PICTURE, seed=3)
    assert pictured(gather(spec, rows)[0], "gelu on value").seed == 3
    assert pictured(gather(spec, rows)[0], "baseline") is None


@pytest.mark.parametrize(
    "odd",
    [
        None,
        [],
        "text",
        {},
        {**PICTURE, "columns": []},
        {**PICTURE, "columns": ["a"]},
        {**PICTURE, "rows": ["a", 3, "c"]},
        {**PICTURE, "weights": [[0.1] * 4] * 2},
        {**PICTURE, "weights": [[None] * 4] * 3},
        {**PICTURE, "weights": [["x"] * 4] * 3},
        {**PICTURE, "weights": "xxx"},
    ],
)
def test_a_picture_of_another_form_is_left_out(odd):
    assert trial_of(odd) is None
    assert "Where it looks" not in render_page(*with_picture(odd))


def test_a_large_picture_is_drawn_in_part():
    large = {
        "columns": ["x"] * 500,
        "rows": ["y"] * 300,
        "weights": [[1.0] * 500 for _ in range(300)],
    }
    assert len(draw_rows(trial_of(large), key="k").svg) < 500_000


@pytest.mark.parametrize("payload", PAYLOADS)
def test_tokens_reach_the_drawing_as_words(payload):
    picture = {"columns": [payload, "b"], "rows": [payload], "weights": [[0.7, 0.3]]}
    drawing = draw_rows(trial_of(picture), key="k")
    root = ElementTree.fromstring(drawing.svg)
    tags = {element.tag for element in root.iter()}
    assert tags <= {"svg", "g", "path", "text", "desc", "defs", "clipPath", "rect", "use", "tspan"}
    names = {name for element in root.iter() for name in element.attrib}
    assert not any(name.startswith("on") for name in names)


def test_tokens_reach_the_page_as_words():
    payloads = list(PAYLOADS)
    weights = [[0.5] * len(payloads)] * 2
    page = render_page(*with_picture({"columns": payloads, "rows": ["a", "b"], "weights": weights}))
    plain = render_page(*with_picture(PICTURE))
    for opening in ("<script", "<img", "<iframe", "<svg onload", "<link", "<object", "<base"):
        assert page.count(opening) == plain.count(opening)


def test_equal_rows_give_equal_bytes():
    first, second = (draw_rows(trial_of(PICTURE), key="k").svg for _ in range(2))
    assert first == second

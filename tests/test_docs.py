"""The site builds without a warning, and its tables hold every part and preset."""

from __future__ import annotations

import html
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ogive.parts import catalogue, presets

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Where the built pages are. The module's tests share one build."""
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "-d", str(folder / "trees")]
    ran = subprocess.run(
        [*build, str(DOCS), str(folder)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return folder


def letters(text: str) -> str:
    """A text without what typography changes: quotes, dashes, and where lines end."""
    return re.sub(r"\W", "", html.unescape(re.sub(r"<[^>]*>", "", text)))


def test_pages_and_results_name_no_path_of_a_machine():
    """What a study or a benchmark printed is pasted, where it ran is not."""
    results = DOCS.parent / "benchmarks" / "results"
    kept = [*DOCS.rglob("*.md"), *results.glob("*.json"), *DOCS.parent.glob("*.md")]
    assert len(kept) > 10
    told = r"(?<![\w.])/(tmp|home|root|work|Users)/\w"
    assert [path.name for path in kept if re.search(told, path.read_text())] == []


@pytest.mark.parametrize("family", ["map", "score", "weight"])
def test_every_part_is_in_the_table(site, family):
    page = (site / "parts.html").read_text()
    members = catalogue(family).values()
    assert [m.name for m in members if f'<span class="pre">{m.name}' not in page] == []
    assert [m.name for m in members if letters(m.source) not in letters(page)] == []


def test_every_preset_is_in_the_table(site):
    page = html.unescape((site / "sites.html").read_text())
    assert [name for name in presets if f'<span class="pre">{name}</span>' not in page] == []


def test_formulas_are_drawn_not_spelled(site):
    page = (site / "parts.html").read_text()
    assert page.count("<math ") >= sum(len(catalogue(f)) for f in ("map", "score", "weight"))
    assert r"\mathrm" not in page


def test_nothing_comes_from_a_network(site):
    for page in site.glob("*.html"):
        for load in ('src="http', "@import", 'rel="stylesheet" href="http'):
            assert load not in page.read_text(), f"{page.name} loads {load}"


RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def measured() -> list[tuple[str, dict]]:
    """Every row that a benchmark wrote, with the name of its file."""
    files = [(path.stem, json.loads(path.read_text())) for path in sorted(RESULTS.glob("*.json"))]
    return [(name, row) for name, kept in files for row in kept.get("rows", [])]


@pytest.mark.parametrize("name", ["kernels", "systems"])
def test_measured_tables_are_the_results(site, name):
    """Each file of results that a page shows, with each of its numbers."""
    page = html.unescape((site / f"{name}.html").read_text()).replace("’", "'")
    shown = set(re.findall(r"\{measured\} ([\w-]+)", (DOCS / f"{name}.md").read_text()))
    assert shown
    assert shown <= {file for file, _ in measured()}
    for file, row in measured():
        if file not in shown:
            continue
        if not {"ratio", "mib"} & set(row):  # a plain table
            assert all(f">{cell}" in page for cell in row.values()), f"{file}: {row}"
        else:
            number = row["ratio"][1] if "ratio" in row else row["mib"]
            told = {f"{number:.2f}", f"{number:.0f}"} if number is not None else {"does not fit"}
            told |= {f"{row['ms'][1]:.3g}"} if "ms" in row else set()
            assert any(f">{text}" in page for text in told), f"{file}: {row}"


def test_the_roofline_is_drawn_from_the_results():
    ran = subprocess.run(
        [sys.executable, DOCS / "draw_roofline.py", "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr

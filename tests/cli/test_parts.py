"""`ogive parts` shows every part that there is, in characters that a terminal has."""

from __future__ import annotations

import json
import sys

import pytest

from commandline import ogive
from ogive.cli import curve, formula
from ogive.cli.main import main
from ogive.parts import catalogue, presets

FAMILIES = ("map", "score", "weight")


@pytest.fixture
def parts(monkeypatch, capsys):
    """Run `ogive parts WORDS` in this process; returns what it printed."""

    def run(*words: str) -> str:
        monkeypatch.setattr(sys, "argv", ["ogive", "parts", *words])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        return capsys.readouterr().out

    return run


def test_the_list_names_every_part(parts):
    told = [line.split()[0] for line in parts().splitlines() if line.strip()]
    for family in FAMILIES:
        assert set(catalogue(family)) <= set(told)
    assert set(presets) <= set(told)


def test_json_holds_the_same(parts):
    told = json.loads(parts("--json"))
    assert [one["name"] for one in told if one["family"] == "weight"] == list(catalogue("weight"))
    assert [one["name"] for one in told if one["family"] == "preset"] == list(presets)
    tanh = next(one for one in told if (one["family"], one["name"]) == ("weight", "tanh"))
    assert tanh["formula"] == catalogue("weight")["tanh"].formula
    assert tanh["facts"]["odd"] is True
    assert "nonnegative" not in tanh["facts"]


def test_one_name_in_two_families(parts):
    told = parts("relu")
    assert "relu (map, activation)" in told
    assert "relu (weight)" in told
    assert told.count("source") == 2
    assert "relu (map" not in parts("relu", "--family", "weight")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_part_can_be_shown(family, parts):
    for name in catalogue(family):
        assert f"{name} ({family}" in parts(name, "--family", family)


def test_a_preset_shows_its_sites(parts):
    assert "mixed=gate(sigmoid)" in parts("gated_attention2025")
    assert "every site at its default" in parts("vaswani2017")


def test_output_into_a_pipe_that_closes(tmp_path):
    import subprocess

    script = f"{sys.executable} -m ogive parts | head -n 1; echo ${{PIPESTATUS[0]}}"
    ran = subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.stderr == ""
    assert ran.stdout.splitlines()[-1] in ("0", "1")


def test_ascii_terminals_get_their_lines_too(tmp_path):
    ran = ogive("parts", "tanh", folder=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert ran.returncode == 0, ran.stderr
    assert "tanh (map, activation)" in ran.stdout


def all_formulas() -> list[str]:
    members = [member.formula for family in FAMILIES for member in catalogue(family).values()]
    return members + [preset.formula for preset in presets.values()]


@pytest.mark.parametrize("latex", all_formulas())
def test_no_latex_is_left(latex):
    shown = formula.plain(latex)
    assert not set(shown) & set("\\{}")
    assert shown.count("(") == shown.count(")")


@pytest.mark.parametrize(
    ("latex", "shown"),
    [
        (r"\max(h, 0)^2", "max(h, 0)²"),
        (r"w_{ij} = e^{s_{ij}} / \sum_k e^{s_{ik}}", "w_ij = exp(s_ij) / Σ_k exp(s_ik)"),
        (r"q^{\top} W k / \sqrt{d}", "qᵀ W k / √d"),
        (r"\frac{a + b}{2}", "(a + b)/2"),
        (r"h / \sqrt{\mathrm{mean}(h^2) + 10^{-6}}", "h / √(mean(h²) + 10⁻⁶)"),
        (r"\unheard{x}", r"\unheardx"),  # unknown signs stay visible, and the test above bites
    ],
)
def test_formulas(latex, shown):
    assert formula.plain(latex) == shown


def lit(line: str) -> list[int]:
    return [at for at, char in enumerate(line) if 0x2800 < ord(char) <= 0x28FF]


def test_a_curve_rises_from_left_to_right():
    lines = curve.draw([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], columns=20, rows=5)
    cells = [line[2:] for line in lines[:4]]  # the last row also holds the line y = 0
    assert lines[0].startswith("3 ")
    assert lines[4].startswith("0 ")
    assert [max(lit(row)) for row in cells] == sorted([max(lit(r)) for r in cells], reverse=True)
    assert lines[-1].split() == ["1", "3"]


def test_a_curve_leaves_out_what_is_no_number():
    nan, inf = float("nan"), float("inf")
    assert curve.draw([0.0, 1.0, 2.0], [1.0, nan, inf])[0].startswith("1 ")
    assert curve.draw([0.0, 1.0], [0.0, 0.0])  # a curve that is zero everywhere has a range too

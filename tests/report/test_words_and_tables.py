"""The headline says no more than the comparisons do, and tables hold the numbers of the rows."""

from __future__ import annotations

import dataclasses

import pytest

from ogive.lab import compare
from ogive.report import tables
from ogive.report.evidence import gather
from ogive.report.text import clean, decimals_for, general, listed, number, shorten
from ogive.report.words import NOT_YET, by_verdict, headline, notices
from report import sample

UNIT = "nats per byte"


def judged(**verdicts):
    """Comparisons with the verdicts given; a name that begins with `control` is a control."""
    labels = {name.replace("_", " "): verdict for name, verdict in verdicts.items()}
    spec = sample.spec(
        dict.fromkeys(labels, 0.0), controls=[name for name in labels if name.startswith("control")]
    )
    found = compare(spec, sample.rows(dict.fromkeys(labels, 0.0), tuning=False))
    return [
        dataclasses.replace(
            one,
            verdict=labels[one.variant],
            effect=-0.01 * (place + 1),
            low=-0.01 * (place + 1) - 0.005,
            high=-0.01 * (place + 1) + 0.005,
        )
        for place, one in enumerate(found)
    ]


@pytest.mark.parametrize(
    ("verdicts", "said"),
    [
        (
            {"gelu": "better"},
            ["The one variant is better than the baseline: gelu, by 0.010 nats per byte."],
        ),
        (
            {"a": "better", "b": "better", "c": "worse"},
            [
                "2 of 3 variants are better than the baseline: a and b, most of all b, by 0.020 "
                "nats per byte.",
                "Worse: c.",
            ],
        ),
        (
            {"a": "worse", "b": "worse"},
            ["No variant is better than the baseline.", "Worse: a and b."],
        ),
        (
            {"a": "undecided", "b": "worse"},
            ["No variant is shown to be better than the baseline.", "Worse: b. Undecided: a."],
        ),
        (
            {"a": "equivalent"},
            ["The one variant is equivalent to the baseline within ±0.01 nats per byte."],
        ),
        (
            {"a": "equivalent", "b": "equivalent", "c": "equivalent"},
            ["All 3 variants are equivalent to the baseline within ±0.01 nats per byte."],
        ),
        (
            {"a": "equivalent", "b": "undecided"},
            [
                "No variant is shown to be better than the baseline.",
                "Equivalent to the baseline within ±0.01 nats per byte: a. Undecided: b.",
            ],
        ),
        (
            {"a": "better", "control_x": "better"},
            [
                "The one variant is better than the baseline: a, by 0.010 nats per byte.",
                "But so is the control control x: the gain need not come from the nonlinearity.",
            ],
        ),
        (
            {"a": "better", "control_x": "undecided", "control_y": "equivalent"},
            [
                "The one variant is better than the baseline: a, by 0.010 nats per byte.",
                "Of the controls, control x is still undecided.",
            ],
        ),
        (
            {"a": "better", "control_x": "equivalent"},
            [
                "The one variant is better than the baseline: a, by 0.010 nats per byte.",
                "None of the controls is better.",
            ],
        ),
        (
            {"a": "equivalent", "control_x": "better"},
            ["The one variant is equivalent to the baseline within ±0.01 nats per byte."],
        ),
    ],
)
def test_headline(verdicts, said):
    assert headline(judged(**verdicts), UNIT) == said


def test_headline_waits_for_two_pairs():
    one = dataclasses.replace(judged(a="undecided")[0], n=1)
    assert headline([one], UNIT) == [NOT_YET]
    assert headline([], UNIT) == [NOT_YET]


def test_sentences_come_by_verdict_then_in_the_study_s_order():
    order = by_verdict(judged(a="undecided", b="better", c="worse", d="better", e="equivalent"))
    assert [one.variant for one in order] == ["b", "d", "c", "e", "a"]


def test_firm_study_needs_no_notice():
    spec, rows, comparisons = sample.study()
    assert notices(spec, gather(spec, rows), comparisons) == []


# --- tables ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evidence():
    return gather(sample.spec(), sample.rows())[0]


def cells(table, label: str) -> dict[str, str]:
    row = next(row for row in table.rows if row[0].text == label)
    return {name: cell.text for name, cell in zip(table.columns, row, strict=True)}


def test_cost_is_taken_seed_by_seed():
    slow, fast = 2.0, 1.0
    rows = [
        sample.row(
            variant=label,
            seed=seed,
            result=sample.result(2.0 + seed, points=1, parameters=1000 + 10 * (label != "baseline"))
            | {"step_ms": (seed + 1) * (slow + seed if label != "baseline" else fast)},
        )
        for label in ("baseline", "gelu on value")
        for seed in range(3)
    ]
    evidence = gather(sample.spec(), rows)[0]
    ours = cells(tables.cost(evidence), "gelu on value")
    assert ours["time against baseline"] == "3.00 × (2.00 to 4.00)"
    assert ours["parameters"] == "1,010 (+1.00 %)"
    assert ours["score, mean ± sd"] == "3.0000 ± 1.0000"
    assert ours["ms per step"] == "6.0"
    assert cells(tables.cost(evidence), "baseline")["parameters"] == "1,000"


def test_ladder_shows_the_chosen_rung_and_its_edge(evidence):
    table = tables.ladder(evidence)
    assert cells(table, "gelu on value") == {
        "variant": "gelu on value",
        "0.001": "2.4290",
        "0.003": "● 2.3790",
        "0.01": "2.4290",
        "chosen": "0.003",
    }
    assert cells(table, "relu on key")["chosen"] == "0.01 (edge)"
    assert "For relu on key the best rate lies at an edge" in table.notes[1]
    assert "1000000" in table.notes[0]


def test_rung_that_failed_is_no_gap():
    rows = sample.rows()
    at = next(
        place
        for place, row in enumerate(rows)
        if row.role == "tune" and row.variant == "gelu on key" and row.learning_rate == 1e-2
    )
    rows[at] = sample.row(
        variant="gelu on key",
        role="tune",
        lr=1e-2,
        seed=1_000_000,
        state="failed",
        reason="diverged",
    )
    table = tables.ladder(gather(sample.spec(), rows)[0])
    assert cells(table, "gelu on key")["0.01"] == "no score"


def test_receipts_show_what_was_matched(evidence):
    arms = sample.plan()["arms"]["text"]
    gate = cells(tables.budget(evidence, arms, "parameters"), "sigmoid gate on mixed")
    assert gate == {
        "variant": "sigmoid gate on mixed",
        "sites": "mixed=gate(sigmoid)",
        "target": "115,776",
        "reached": "115,840",
        "difference": "+0.06 %",
        "hidden width": "224",
        "before": "256",
    }
    without = cells(tables.budget(evidence, {}, "none"), "gelu on value")
    assert without["difference"] == "exact"
    assert "matched no budget" in tables.budget(evidence, {}, "none").notes[0]


def test_verdict_table_holds_every_number():
    comparisons = sample.study()[2]
    table = tables.verdicts(comparisons, UNIT)
    row = cells(table, "sigmoid gate on mixed")
    one = next(one for one in comparisons if one.variant == "sigmoid gate on mixed")
    assert row["verdict"] == "▲ better"
    assert float(row[f"effect, {UNIT}"].replace("−", "-")) == pytest.approx(one.effect, abs=1e-4)
    assert row["pairs"] == "6 of 6"
    assert float(row["correlation"]) == pytest.approx(one.correlation, abs=5e-3)
    assert cells(table, "relu on query")["more seeds"] == str(
        next(one.more_seeds for one in comparisons if one.variant == "relu on query")
    )
    assert "scale on value (control)" in [row[0].text for row in table.rows]


def test_machines_that_differ_are_counted():
    rows = sample.rows(tuning=False, seeds=2)
    rows[0].result["environment"] = sample.ENVIRONMENT | {"torch": "2.10.0"}
    table = tables.environment(gather(sample.spec(), rows))
    shown = cells(table, "torch")["value"]
    assert f"2.13.0 ({len(rows) - 1} trials)" in shown
    assert "2.10.0 (1 trials)" in shown or "2.10.0 (1 trial)" in shown
    assert cells(table, "data of text")["value"] == "5f0c7d1e9a3b2468"


# --- strings and numbers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("came", "shown"),
    [
        ("plain", "plain"),
        ("a\r\nb\u2028c\x85d", "a\nb\nc\nd"),
        ("nul\x00esc\x1b", "nul␀esc␛"),
        ("\u202egnp.exe", "\ufffdgnp.exe"),
        ("\ud800\uffff", "\ufffd\ufffd"),
        ("tab\tstays", "tab\tstays"),
        ("é 一 \U0001f600", "é 一 \U0001f600"),
        ({"k\x00": ["v\x01", 1, None]}, {"k␀": ["v␁", 1, None]}),
    ],
)
def test_clean(came, shown):
    assert clean(came) == shown
    assert clean(clean(came)) == shown


@pytest.mark.parametrize(
    ("value", "decimals", "signed", "shown"),
    [
        (0.0314, 3, True, "+0.031"),
        (-0.0314, 3, False, "−0.031"),
        (-0.0001, 3, True, "0.000"),
        (1234567.891, 1, False, "1,234,567.9"),
        (None, 3, False, "–"),
        (float("nan"), 3, True, "–"),
        ("text", 3, False, "–"),
        (1e300, 2, False, "1e+300"),
    ],
)
def test_number(value, decimals, signed, shown):
    assert number(value, decimals, signed) == shown


def test_decimals_show_two_digits_of_the_narrowest_interval():
    assert decimals_for([0.016, 0.5]) == 3
    assert decimals_for([0.008]) == 4
    assert decimals_for([30.0]) == 2
    assert decimals_for([float("nan"), 0.0]) == 3


def test_prose():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(list("abcdef")) == "a, b, c and 3 more"
    assert shorten("a  long\nlabel", 8) == "a long…"
    assert general(1e-5) == "1e−05"

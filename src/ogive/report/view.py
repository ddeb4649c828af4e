"""What the page shows, in its order, as the plain values that the template writes out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ogive.lab import sentence
from ogive.report import tables
from ogive.report.cards import difference_scales, draw_curves, draw_pairs, score_scales
from ogive.report.evidence import Evidence, gather
from ogive.report.figures import draw_forest
from ogive.report.rows import draw_rows, pictured
from ogive.report.svg import Drawing
from ogive.report.text import clean
from ogive.report.words import NOT_YET, by_verdict, headline, notices, parted

ROWS_DRAWN = 60  # of a forest plot
CARDS_DRAWN = 24  # small figures of each kind
ROWS_OF_ATTENTION = 8  # variants whose rows of attention are drawn


def view(
    spec: Mapping[str, Any], rows: list[Any], comparisons: list[Any], plan: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything the template needs, and the words of the figures' marks under `tips`.

    Args:
        spec: the study, strings clean.
        rows, comparisons: as `write_page` takes them.
        plan: the study's plan, or an empty mapping.
    """
    groups, tips = gather(spec, rows), {}
    tasks = [
        _task(
            spec,
            group,
            [one for one in comparisons if clean(one.task) == group.task],
            plan,
            f"t{place}",
            tips,
            len(groups) == 1,
        )
        for place, group in enumerate(groups)
    ]
    return {
        "name": spec.get("name", ""),
        "question": spec.get("question") or spec.get("name") or "A study without a question",
        "headlines": [(task["name"], task["headline"]) for task in tasks] or [("", [NOT_YET])],
        "notices": notices(dict(spec), groups, comparisons),
        "tasks": tasks,
        "failures": tables.failures(groups),
        "trials": tables.trials(groups),
        "settings": tables.settings(spec),
        "environment": tables.environment(groups),
        "tuned": len(spec.get("learning_rates") or []) != 1,
        "tips": tips,
    }


def _task(
    spec: Mapping[str, Any],
    evidence: Evidence,
    comparisons: list[Any],
    plan: Mapping[str, Any],
    key: str,
    tips: dict[str, str],
    alone: bool,
) -> dict[str, Any]:
    """One task's sections."""
    unit = evidence.unit or (clean(comparisons[0].metric) if comparisons else "")
    arms = (plan.get("arms") or {}).get(evidence.task) or {}
    measured = [one for one in comparisons if one.n > 0]
    return {
        "name": evidence.task,
        "key": key,
        "unit": unit,
        "headline": headline(comparisons, unit),
        "sentences": [
            (one.verdict, *parted(sentence(one), one, alone)) for one in by_verdict(comparisons)
        ],
        "forest": _forest(spec, measured, unit, key, tips),
        "forest_note": _left_out(len(measured), ROWS_DRAWN, "variants"),
        "pairs": _cards(evidence, measured, f"{key}-pairs", tips, draw_pairs, score_scales),
        "curves": _cards(evidence, measured, f"{key}-curves", tips, draw_curves, difference_scales),
        "rows": _rows(evidence, f"{key}-rows", tips),
        "cards_note": _left_out(len(measured), CARDS_DRAWN, "variants"),
        "verdicts": tables.verdicts(comparisons, unit),
        "cost": tables.cost(evidence),
        "ladder": tables.ladder(evidence),
        "budget": tables.budget(evidence, arms, str(spec.get("match", "none"))),
    }


def _forest(
    spec: Mapping[str, Any], comparisons: list[Any], unit: str, key: str, tips: dict[str, str]
) -> list[Markup]:
    """The forest plot for wide and for narrow windows; empty when there is nothing to draw."""
    if not comparisons:
        return []
    sites = {
        label: arm.get("sites", "") if isinstance(arm, dict) else str(arm)
        for label, arm in spec.get("variants", {}).items()
    }
    return [
        _inline(
            draw_forest(
                comparisons[:ROWS_DRAWN],
                unit=unit,
                sites=sites,
                narrow=narrow,
                key=f"{key}-forest-{'narrow' if narrow else 'wide'}",
            ),
            tips,
        )
        for narrow in (False, True)
    ]


def _cards(
    evidence: Evidence,
    comparisons: list[Any],
    key: str,
    tips: dict[str, str],
    draw: Any,
    scales_of: Any,
) -> list[Markup]:
    """One card per variant, each with its scale."""
    shown = [(clean(one.variant), one) for one in comparisons[:CARDS_DRAWN]]
    scales = scales_of(evidence, [label for label, _ in shown])
    return [
        _inline(draw(evidence, label, one, scales[label], key=f"{key}-{place}"), tips)
        for place, (label, one) in enumerate(shown)
    ]


def _rows(evidence: Evidence, key: str, tips: dict[str, str]) -> list[Markup]:
    """The rows of attention of the baseline and the first variants, where a trial kept them."""
    found = [pictured(evidence, variant) for variant in evidence.variants]
    drawn = [trial for trial in found if trial is not None][:ROWS_OF_ATTENTION]
    return [
        _inline(draw_rows(trial, key=f"{key}-{place}"), tips) for place, trial in enumerate(drawn)
    ]


def _inline(drawing: Drawing, tips: dict[str, str]) -> Markup:
    tips.update(drawing.tips)
    return Markup(drawing.svg)


def _left_out(count: int, limit: int, noun: str) -> str:
    return (
        f"The first {limit} of {count} {noun} are drawn; the tables hold all."
        if count > limit
        else ""
    )

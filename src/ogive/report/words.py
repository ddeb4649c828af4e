"""The answer in a sentence or three, from the comparisons alone, promising no more than they do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ogive.report.evidence import BASELINE
from ogive.report.palette import MARKS
from ogive.report.text import clean, decimals_for, listed, number, plural

NOT_YET = "There is no answer yet: no variant has two finished pairs of trials."


def headline(comparisons: Sequence[Any], unit: str) -> list[str]:
    """What one task's comparisons say, in sentences: the main one, then the rest, then controls.

    Args:
        comparisons: of one task, from `ogive.lab.compare`.
        unit: of the effects and the margin.
    """
    candidates = [one for one in comparisons if not one.control] or list(comparisons)
    if not any(one.n >= 2 for one in candidates):
        return [NOT_YET]
    groups = {
        verdict: [one for one in candidates if one.verdict == verdict]
        for verdict in ("better", "worse", "equivalent", "undecided")
    }
    sentences = [_first(groups, candidates, unit), _rest(groups, candidates, unit)]
    if groups["better"] and candidates != list(comparisons):
        sentences.append(_controls(comparisons))
    return [sentence for sentence in sentences if sentence]


def _first(groups: dict[str, list[Any]], candidates: list[Any], unit: str) -> str:
    better, many = groups["better"], len(candidates)
    if better:
        best = max(better, key=lambda one: abs(one.effect))
        decimals = decimals_for([best.high - best.low])
        size = f"by {number(abs(best.effect), decimals)} {unit}".rstrip()
        most = size if len(better) == 1 else f"most of all {_label(best)}, {size}"
        count = "The one variant" if many == 1 else f"{len(better)} of {many} variants"
        return f"{count} {_is(better)} better than the baseline: {_names(better)}, {most}."
    if len(groups["equivalent"]) == many:
        whole = {1: "The one variant is", 2: "Both variants are"}
        return f"{whole.get(many, f'All {many} variants are')} {_same(candidates, unit)}."
    shown = "shown to be " if groups["undecided"] else ""
    return f"No variant is {shown}better than the baseline."


def _rest(groups: dict[str, list[Any]], candidates: list[Any], unit: str) -> str:
    if len(groups["equivalent"]) == len(candidates):
        return ""
    ends = {
        "worse": "Worse",
        "equivalent": _same(candidates, unit).capitalize(),
        "undecided": "Undecided",
    }
    return " ".join(
        f"{words}: {_names(groups[verdict])}." for verdict, words in ends.items() if groups[verdict]
    )


def _controls(comparisons: Sequence[Any]) -> str:
    controls = [one for one in comparisons if one.control]
    better = [one for one in controls if one.verdict == "better"]
    if better:
        noun = "control" if len(better) == 1 else "controls"
        return (
            f"But so {_is(better)} the {noun} {_names(better)}: the gain need not come from "
            "the nonlinearity."
        )
    unsettled = [one for one in controls if one.verdict == "undecided"]
    if unsettled:
        return f"Of the controls, {_names(unsettled)} {_is(unsettled)} still undecided."
    return "None of the controls is better."


def by_verdict(comparisons: Sequence[Any]) -> list[Any]:
    """Better first, then worse, equivalent and undecided; the study's order within each."""
    return sorted(comparisons, key=lambda one: list(MARKS).index(one.verdict))


def parted(sentence: str, one: Any, alone: bool) -> tuple[str, str]:
    """A verdict's sentence as its subject and what is said of it.

    Args:
        sentence: what `ogive.lab.sentence` gives.
        one: the comparison that it is about.
        alone: whether the study has one task only, which need not be named then.
    """
    text = clean(sentence)
    if alone:
        text = text.replace(f" on {clean(one.task)}: ", ": ", 1)
    subject, text = _held_together(clean(one.variant)), _held_together(text)
    return (subject, text[len(subject) :]) if text.startswith(subject) else ("", text)


def notices(spec: dict[str, Any], evidence: Sequence[Any], comparisons: Sequence[Any]) -> list[str]:
    """What a reader must know before believing the headline; empty when there is nothing."""
    trials = [trial for group in evidence for trial in group.trials]
    found = []
    if spec.get("quick"):
        found.append("This was a quick study: few seeds and short training. Its verdicts are weak.")
    elif any(one.weak and one.n >= 2 for one in comparisons):
        found.append("Verdicts from fewer than six seeds are weak; more seeds make them firm.")
    if not trials:
        return [*found, "No trial has been planned or run yet: this page will fill when they are."]
    failed = sum(trial.state == "failed" for trial in trials)
    open_ = sum(trial.state in ("pending", "running") for trial in trials)
    if failed == len(trials):
        found.append("Every trial failed; the reasons are listed below.")
    elif failed:
        found.append(f"{plural(failed, 'trial')} of {len(trials):,} failed; see the reasons below.")
    if open_:
        found.append(
            f"{plural(open_, 'trial')} of {len(trials):,} still to finish: what stands "
            "here may change."
        )
    if any(trial.role == "compare" for trial in trials):
        found += _missing(evidence, comparisons)
    else:
        found.append("So far only learning rates have been tuned; the comparison has not begun.")
    return found


def _held_together(text: str) -> str:
    """A number is not parted from its sign at the end of a line."""
    return text.replace(" %", "\u00a0%").replace(" ×", "\u00a0×")


def _missing(evidence: Sequence[Any], comparisons: Sequence[Any]) -> list[str]:
    """Which arms have nothing to show, when others have."""
    found = []
    for group in evidence:
        on = f" on {group.task}" if len(evidence) > 1 else ""
        if not group.compared(BASELINE):
            found.append(f"The baseline has no finished trial{on}, so nothing can be compared.")
            continue
        ours = [one for one in comparisons if clean(one.task) == group.task]
        names = [_label(one) for one in ours if one.n == 0]
        if 0 < len(names) < len(ours):
            found.append(f"No pair of trials has finished{on} for {listed(names)}.")
    return found


def _label(one: Any) -> str:
    return clean(one.variant)


def _names(group: Sequence[Any]) -> str:
    return listed([_label(one) for one in group])


def _is(group: Sequence[Any]) -> str:
    return "is" if len(group) == 1 else "are"


def _same(group: Sequence[Any], unit: str) -> str:
    return f"equivalent to the baseline within ±{group[0].margin:g} {unit}".rstrip()

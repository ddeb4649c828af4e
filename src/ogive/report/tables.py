"""The report's tables as plain values: what each cell shows and what it sorts by."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ogive.report.evidence import BASELINE, Evidence, Trial
from ogive.report.palette import MARKS
from ogive.report.text import NONE, clean, decimals_for, general, is_number, number

TRIALS_SHOWN = 2000


@dataclass(frozen=True)
class Cell:
    """What a cell shows, what it sorts by, and how it looks (`number`, `chosen`, a verdict …)."""

    text: str
    value: float | str | None = None
    looks: str = ""


@dataclass(frozen=True)
class Table:
    """A table with its caption; the first cell of each row heads it."""

    caption: str
    columns: Sequence[str]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)


def _amount(value: Any, text: str | None = None, decimals: int = 3) -> Cell:
    shown = number(value, decimals) if text is None else text
    return Cell(shown, value if is_number(value) else None, "number")


def verdicts(comparisons: Iterable[Any], unit: str) -> Table:
    """Every number behind the verdicts."""
    comparisons = list(comparisons)
    decimals = decimals_for(one.high - one.low for one in comparisons)
    columns = [
        "variant",
        "verdict",
        f"effect, {unit}",
        "95 % interval",
        "sd",
        "pairs",
        "correlation",
        "p",
        "p (Holm)",
        "p (sign flip)",
        "more seeds",
    ]
    rows = [
        [
            Cell(clean(one.variant) + (" (control)" if one.control else "")),
            _verdict(one),
            _amount(one.effect, number(one.effect, decimals, signed=True)),
            _interval(one, decimals),
            _amount(one.sd, decimals=decimals),
            _amount(one.n, f"{one.n} of {one.planned}"),
            _amount(one.correlation, decimals=2),
            *(_amount(p, _p_value(p)) for p in (one.p_value, one.p_holm, one.p_signflip)),
            _more(one),
        ]
        for one in comparisons
    ]
    return Table("Every number behind the verdicts", columns, rows)


def _verdict(one: Any) -> Cell:
    mark = MARKS[one.verdict]
    return Cell(f"{mark.symbol} {mark.word}", mark.word, one.verdict)


def _interval(one: Any, decimals: int) -> Cell:
    if not (is_number(one.low) and is_number(one.high)):
        return _amount(None, NONE)
    ends = [number(end, decimals, signed=True) for end in (one.low, one.high)]
    return _amount(one.high - one.low, f"{ends[0]} to {ends[1]}")


def _p_value(p: float) -> str:
    if not is_number(p):
        return NONE
    return "< 0.001" if p < 0.001 else number(p, 3)


def _more(one: Any) -> Cell:
    if one.verdict != "undecided" or one.n < 2:
        return _amount(None, NONE)
    return _amount(one.more_seeds or 1e9, str(one.more_seeds or "more than 200"))


def cost(evidence: Evidence) -> Table:
    """What each variant costs: parameters, FLOPs and measured time, beside the baseline's."""
    columns = [
        "variant",
        "score, mean ± sd",
        "parameters",
        "FLOPs per token",
        "ms per step",
        "time against baseline",
    ]
    rows = [
        _cost_row(evidence, variant) for variant in evidence.variants if evidence.compared(variant)
    ]
    notes = [
        "Time per step is the median over a trial's steps. Its ratio to the baseline's is "
        "taken seed by seed: the median of those, and their range. FLOPs count the matrix "
        "products of one forward pass. In brackets: the difference from the baseline."
    ]
    return Table("What each variant costs", columns, rows, notes)


def _cost_row(evidence: Evidence, variant: str) -> list[Cell]:
    scores = evidence.amounts(variant, "score")
    text = number(statistics.fmean(scores), 4)
    text += f" ± {number(statistics.stdev(scores), 4)}" if len(scores) > 1 else ""
    return [
        Cell(variant),
        _amount(statistics.fmean(scores), text),
        _beside(evidence, variant, "parameters"),
        _beside(evidence, variant, "flops_per_token"),
        _amount(evidence.typical(variant, "step_ms"), decimals=1),
        _time(evidence, variant),
    ]


def _beside(evidence: Evidence, variant: str, name: str) -> Cell:
    """An amount with its difference from the baseline's in brackets, where there is one."""
    ours, theirs = evidence.typical(variant, name), evidence.typical(BASELINE, name)
    text = number(ours, 0)
    if variant != BASELINE and is_number(ours) and is_number(theirs) and theirs:
        text += " (equal)" if ours == theirs else f" ({_exact(ours / theirs)})"
    return _amount(ours, text)


def _time(evidence: Evidence, variant: str) -> Cell:
    if variant == BASELINE:
        return _amount(1.0, "1")
    times = [
        (ours.amount("step_ms"), theirs.amount("step_ms"))
        for _, theirs, ours in evidence.pairs(variant)
    ]
    ratios = [ours / theirs for ours, theirs in times if is_number(ours) and theirs > 0]
    if not ratios:
        return _amount(None, NONE)
    middle, ends = statistics.median(ratios), (min(ratios), max(ratios))
    return _amount(middle, f"{number(middle, 2)} × ({number(ends[0], 2)} to {number(ends[1], 2)})")


def ladder(evidence: Evidence) -> Table:
    """The learning rates that each variant tried, and the one that its comparison used."""
    rungs = {variant: evidence.ladder(variant) for variant in evidence.variants}
    rungs = {variant: ladder for variant, ladder in rungs.items() if ladder}
    rates = sorted({rate for ladder in rungs.values() for rate in ladder})
    rows, edges = [], []
    for variant, tried in rungs.items():
        chosen = evidence.chosen_rate(variant)
        at_edge = len(tried) > 1 and chosen in (min(tried), max(tried))
        if at_edge:
            edges.append(variant)
        choice = "–" if chosen is None else general(chosen) + (" (edge)" if at_edge else "")
        rows.append(
            [
                Cell(variant),
                *(_rung(tried, rate, chosen) for rate in rates),
                _amount(chosen, choice),
            ]
        )
    seeds = sorted({str(trial.seed) for trial in evidence.trials if trial.role == "tune"})
    notes = [
        f"Mean held-out score, {evidence.unit}, of the tuning trials; ● marks the rate "
        f"chosen. Tuning seeds, which the comparison never uses: {', '.join(seeds)}."
    ]
    if edges:
        notes.append(
            f"For {', '.join(edges)} the best rate lies at an edge of the ladder: a rate "
            "beyond it might be better still."
        )
    return Table(
        "Learning rates tried, and chosen",
        ["variant", *(general(r) for r in rates), "chosen"],
        rows,
        notes,
    )


def _rung(tried: Mapping[float, list[float]], rate: float, chosen: float | None) -> Cell:
    if rate not in tried:
        return Cell("", None, "number")
    scores = tried[rate]
    text = number(statistics.fmean(scores), 4) if scores else "no score"
    value = statistics.fmean(scores) if scores else None
    return Cell(f"● {text}", value, "number chosen") if rate == chosen else _amount(value, text)


def budget(evidence: Evidence, arms: Mapping[str, Any], match: str) -> Table:
    """The receipt of each variant's budget: what was matched, how near it came, by which width."""
    columns = ["variant", "sites", "target", "reached", "difference", "hidden width", "before"]
    rows = []
    for variant in evidence.variants:
        arm = arms.get(variant) or {}
        receipt = arm.get("receipt") or {}
        if not receipt and not evidence.compared(variant):
            continue
        reached = receipt.get("reached", evidence.typical(variant, "parameters"))
        target = receipt.get("target", evidence.typical(BASELINE, "parameters"))
        ratio = reached / target if is_number(reached) and is_number(target) and target else None
        hidden = receipt.get("hidden", _model(evidence, variant).get("hidden"))
        rows.append(
            [
                Cell(variant),
                Cell(_sites(evidence, variant, arm), None, "code"),
                _amount(target, decimals=0),
                _amount(reached, decimals=0),
                _amount(ratio, _exact(ratio)),
                _amount(hidden, decimals=0),
                _amount(receipt.get("hidden_before"), decimals=0),
            ]
        )
    notes = [
        {
            "none": "This study matched no budget: differences in size are part of the effect.",
        }.get(
            match,
            f"The study matches {match}: the feed-forward network's hidden width is "
            "chosen so that a variant costs what the baseline costs, within 1 %.",
        )
    ]
    return Table("Budget receipts", columns, rows, notes)


def _exact(ratio: float | None) -> str:
    if ratio is None:
        return NONE
    return "exact" if ratio == 1.0 else number(100 * (ratio - 1), 2, signed=True) + " %"


def _first(evidence: Evidence, variant: str) -> Trial | None:
    return next(iter(evidence.compared(variant).values()), None)


def _model(evidence: Evidence, variant: str) -> Mapping[str, Any]:
    trial = _first(evidence, variant)
    return (trial.config.get("model") or {}) if trial else {}


def _sites(evidence: Evidence, variant: str, arm: Mapping[str, Any]) -> str:
    trial = _first(evidence, variant)
    sites = arm.get("sites", trial.config.get("sites", "") if trial else "")
    return str(sites) or "all at their defaults"


def failures(groups: Sequence[Evidence]) -> Table:
    """Every trial that failed, with its reason as the worker gave it."""
    columns = ["variant", "task", "role", "seed", "learning rate", "reason", "trial"]
    rows = [
        [
            Cell(trial.variant),
            Cell(trial.task),
            Cell(_role(trial)),
            _amount(trial.seed, str(trial.seed)),
            _amount(trial.lr, general(trial.lr)),
            Cell(_reason(trial), None, "reason"),
            Cell(trial.id, None, "code"),
        ]
        for group in groups
        for trial in group.trials
        if trial.state == "failed" or (trial.state == "done" and not trial.done)
    ]
    return _capped("Trials that failed", columns, rows)


def _reason(trial: Trial) -> str:
    if trial.state == "done":
        return "it finished, but its score is not a number"
    return trial.reason or "no reason was recorded"


def _role(trial: Trial) -> str:
    return {"tune": "tuning", "compare": "comparison"}.get(trial.role, str(trial.role))


def trials(groups: Sequence[Evidence]) -> Table:
    """Every trial of the comparison, with its score."""
    columns = ["variant", "task", "seed", "state", "score", "ms per step", "seconds", "trial"]
    rows = [
        [
            Cell(trial.variant),
            Cell(trial.task),
            _amount(trial.seed, str(trial.seed)),
            Cell(trial.state),
            _amount(trial.score, decimals=5),
            _amount(trial.amount("step_ms"), decimals=1),
            _amount(trial.amount("seconds"), decimals=1),
            Cell(trial.id, None, "code"),
        ]
        for group in groups
        for trial in group.trials
        if trial.role == "compare"
    ]
    return _capped("All trials of the comparison", columns, rows)


def _capped(caption: str, columns: list[str], rows: list[list[Cell]]) -> Table:
    notes = (
        []
        if len(rows) <= TRIALS_SHOWN
        else [f"The first {TRIALS_SHOWN:,} of {len(rows):,}; the store holds the others."]
    )
    return Table(caption, columns, rows[:TRIALS_SHOWN], notes)


def settings(spec: Mapping[str, Any]) -> Table:
    """The study as it was declared."""
    names = {
        "match": "budget matched",
        "seeds": "seeds planned",
        "tuning_seeds": "tuning seeds",
        "learning_rates": "learning rates",
        "margin": "equivalence margin",
        "model": "model",
        "train": "training",
        "task_options": "task options",
        "plugins": "plugins",
    }
    written = {words: _plain(spec.get(name)) for name, words in names.items() if spec.get(name)}
    rows = [[Cell(words), Cell(value, None, "code")] for words, value in written.items() if value]
    return Table("The study as declared", ["setting", "value"], rows)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        kept = {key: item for key, item in value.items() if item not in ({}, [])}
        return ", ".join(
            f"{key}: {_plain(item)}" if isinstance(item, dict) else f"{key} = {_plain(item)}"
            for key, item in kept.items()
        )
    if isinstance(value, list):
        return ", ".join(_plain(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def environment(groups: Sequence[Evidence]) -> Table:
    """What the trials ran on; a value that differed between trials is given with its count."""
    seen: dict[str, Counter[str]] = {}
    for group in groups:
        for trial in group.trials:
            facts = dict(trial.result.get("environment") or {}) if trial.result else {}
            task, code = trial.config.get("task") or {}, trial.config.get("code")
            facts |= {f"data of {group.task}": task["version"]} if task.get("version") else {}
            facts |= {"code": code} if code else {}
            for name, value in facts.items():
                seen.setdefault(str(name), Counter())[_plain(value)] += 1
    rows = [[Cell(name), Cell(_counted(values), None, "code")] for name, values in seen.items()]
    return Table("Data, code and machine", ["what", "value"], rows)


def _counted(values: Counter[str]) -> str:
    if len(values) == 1:
        return next(iter(values))
    return "; ".join(f"{value} ({count} trials)" for value, count in values.most_common(20))

"""`ogive answer`: the verdicts as sentences, for people or (--json) for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ogive.cli import places
from ogive.cli.paper import say

if TYPE_CHECKING:
    from ogive.lab import Comparison, Row


def answer(
    name: Annotated[
        str | None, typer.Argument(help="The study; the last one worked on if left out.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="The file that holds the trials.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON, with every number.")] = False,
) -> None:
    """The verdicts of a study as sentences, finished or not."""
    from ogive.lab import compare

    found, study = places.open_study(name, store)
    with found:
        spec, rows = found.spec(study), found.rows(study)
    comparisons = compare(spec, rows)
    if as_json:
        _print_json(spec, rows, comparisons)
    else:
        tell(spec, rows, comparisons)


def tell(spec: Mapping[str, Any], rows: Sequence[Row], comparisons: Sequence[Comparison]) -> None:
    """Print the question, a sentence for each variant, the answer, and what to know about it."""
    from ogive.report.palette import MARKS

    said = _said(spec, rows, comparisons)
    say(said["question"])
    for task in said["tasks"]:
        print()
        for one in task["comparisons"]:
            say(one["sentence"], f"{MARKS[one['verdict']].symbol} ")
        print()
        head = f"Answer on {task['task']}: " if len(said["tasks"]) > 1 else "Answer: "
        say(head + task["headline"])
    for notice in said["notices"]:
        say(f"Note: {notice}")


def _said(
    spec: Mapping[str, Any], rows: Sequence[Row], comparisons: Sequence[Comparison]
) -> dict[str, Any]:
    """All that an answer says, as JSON values."""
    from ogive.lab import sentence
    from ogive.lab.identity import finite
    from ogive.report.evidence import gather
    from ogive.report.words import headline, notices

    evidence = gather(dict(spec), list(rows))
    tasks = []
    for group in evidence:
        ours = [one for one in comparisons if one.task == group.task]
        unit = group.unit or (ours[0].metric if ours else "")
        told = [{"sentence": sentence(one), **finite(asdict(one))} for one in ours]
        tasks.append(
            {
                "task": group.task,
                "unit": unit,
                "headline": " ".join(headline(ours, unit)),
                "comparisons": told,
            }
        )
    return {
        "study": spec["name"],
        "question": spec["question"],
        "tasks": tasks,
        "notices": notices(dict(spec), evidence, comparisons),
    }


def _print_json(
    spec: Mapping[str, Any], rows: Sequence[Row], comparisons: Sequence[Comparison]
) -> None:
    import json

    print(json.dumps(_said(spec, rows, comparisons), indent=2, ensure_ascii=False))

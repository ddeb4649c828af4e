"""`ogive status`: how far the studies are. Starts without torch, scipy and matplotlib."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ogive.cli import places
from ogive.cli.paper import console, duration, say
from ogive.errors import StoreError

if TYPE_CHECKING:
    from ogive.lab import Row, Store

OVER = ("done", "failed")


def status(
    name: Annotated[str | None, typer.Argument(help="One study; all of them if left out.")] = None,
    store: Annotated[Path | None, typer.Option(help="The file that holds the trials.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """How far the studies are: trials done, running, failed, waiting."""
    if name is None:
        found = [line for path in places.stores(store) for line in _studies(path, store)]
        print(json.dumps(found, indent=2)) if as_json else _print_all(found)
        return
    opened, study = places.open_study(name, store)
    with opened:
        summary, rows = _summary(opened, study), opened.rows(study)
    if as_json:
        print(json.dumps({**summary, "arms": _arms(rows)}, indent=2))
    else:
        _print_one(summary, rows)


def _studies(path: Path, asked: Path | None) -> list[dict[str, Any]]:
    """A line per study of a store; one that cannot be read is a line too, unless it was named."""
    from ogive.lab import Store

    try:
        with Store.open_readonly(path) as store:
            return [_summary(store, study) for study in store.studies()]
    except StoreError as error:
        if asked is not None:
            raise
        return [{"store": str(path), "error": str(error)}]


def _summary(store: Store, study: str) -> dict[str, Any]:
    started = store.created(study)
    return {"study": study, "store": str(store.path), "started": started, **store.counts(study)}


def _arms(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """How far each arm of each task is, in the order of the trials."""
    ordered = sorted(rows, key=lambda row: (row.role == "tune", row.position))
    arms: dict[tuple[str, str], Counter[str]] = {}
    for row in ordered:
        seen = arms.setdefault((row.task, row.variant), Counter())
        seen[f"{row.role}_total"] += 1
        seen[f"{row.role}_over"] += row.state in OVER
        seen["failed"] += row.state == "failed"
        seen["running"] += row.state == "running"
    keys = ("tune_over", "tune_total", "compare_over", "compare_total", "running", "failed")
    return [
        {"task": task, "variant": variant, **{key: seen[key] for key in keys}}
        for (task, variant), seen in arms.items()
    ]


def _print_all(found: Sequence[dict[str, Any]]) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("study", "done", "running", "failed", "waiting", "of", "store"):
        table.add_column(heading, justify="left" if heading in ("study", "store") else "right")
    for line in found:
        if "error" not in line:
            numbers = [str(line[key]) for key in ("done", "running", "failed", "pending", "total")]
            table.add_row(line["study"], *numbers, line["store"])
    if table.row_count:
        console().print(table)
    if not found:
        say("No study has run yet.")
    for line in found:
        if "error" in line:
            say(f"not readable: {line['error']}")


def _print_one(summary: dict[str, Any], rows: Sequence[Row]) -> None:
    from rich.table import Table
    from rich.text import Text

    from ogive.report.text import clean

    since = duration(max(0.0, time.time() - summary["started"]))
    say(
        f"{summary['study']}: {summary['done']} of {summary['total']} trials done, "
        f"{summary['running']} running, {summary['failed']} failed; begun {since} ago, "
        f"kept in {summary['store']}"
    )
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("task", "variant", "tuning", "comparison", "running", "failed"):
        table.add_column(heading, justify="left" if heading in ("task", "variant") else "right")
    for arm in _arms(rows):
        table.add_row(
            Text(clean(arm["task"])),
            Text(clean(arm["variant"])),
            f"{arm['tune_over']}/{arm['tune_total']}" if arm["tune_total"] else "",
            f"{arm['compare_over']}/{arm['compare_total']}" if arm["compare_total"] else "",
            str(arm["running"] or ""),
            str(arm["failed"] or ""),
        )
    print()
    console().print(table)
    _print_failures(rows)


def _print_failures(rows: Sequence[Row]) -> None:
    reasons = Counter(row.reason for row in rows if row.state == "failed" and row.reason)
    for reason, many in reasons.most_common(10):
        say(f"{many} failed: {reason}", "  ")

"""Run a study in front of somebody: what it will do, how far it is, what came of it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from ogive.cli import places
from ogive.cli.paper import count, duration, say

if TYPE_CHECKING:
    from ogive.lab import Outcome, Study

CTRL_C = 130


def default_workers() -> int:
    """Two processes, or one where there is one core."""
    return min(2, os.cpu_count() or 1)


def run(
    study: Study,
    intro: Sequence[str],
    *,
    store: Path,
    output: Path | None,
    workers: int | None,
    retry_failed: bool = False,
) -> None:
    """Run what is missing of a study, then print its answer and write its page.

    Args:
        study: what to run.
        intro: paragraphs that say what is about to happen.
        store, output: where trials and page go; a page without a place lies beside its store.
        workers: processes; None for the default.
        retry_failed: run failed trials again.

    Raises:
        typer.Exit: 130 after Ctrl-C, with a line that says how to go on.
        OgiveError: whatever keeps the study from running.
    """
    from ogive.cli.watching import watching
    from ogive.lab import run_study

    for paragraph in intro:
        say(paragraph)
        print()
    say(
        f"Trials are kept in {store}. Ctrl-C stops; the same command then goes on where it "
        "stopped, and does nothing twice."
    )
    print(flush=True)
    try:
        with watching() as show:
            outcome = run_study(
                study,
                store_path=store,
                workers=workers or default_workers(),
                on_progress=show,
                retry_failed=retry_failed,
            )
        _conclude(study, outcome, store, output)
    except KeyboardInterrupt:
        print()
        say(f"Stopped. What was finished is kept; to go on: {places.again()}")
        raise typer.Exit(CTRL_C) from None


def _conclude(study: Study, outcome: Outcome, store: Path, output: Path | None) -> None:
    from ogive.cli.answer import tell
    from ogive.cli.report import write

    print()
    say(_what_ran(outcome))
    print(flush=True)
    tell(outcome.spec, outcome.rows, outcome.comparisons)
    place = write(study.name, store, output, shlex.join(["ogive", *sys.argv[1:]]))
    print(f"\nReport: {place}", flush=True)


def _what_ran(outcome: Outcome) -> str:
    over = sum(row.state in ("done", "failed") for row in outcome.rows)
    if not outcome.executed:
        return f"All {count(over, 'trial')} were already there: nothing was left to run."
    ran = f"{count(outcome.executed, 'trial')} run in {duration(outcome.seconds)}"
    before = over - outcome.executed
    return f"{ran}; {count(before, 'trial')} were already there." if before else f"{ran}."

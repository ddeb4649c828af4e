"""`ogive report`: write the page of a study, finished or not."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ogive.cli import places


def report(
    name: Annotated[
        str | None, typer.Argument(help="The study; the last one worked on if left out.")
    ] = None,
    store: Annotated[Path | None, typer.Option(help="The file that holds the trials.")] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Where to write the page.")
    ] = None,
) -> None:
    """Write the page of a study: one HTML file that opens from disk."""
    found, study = places.open_study(name, store)
    found.close()
    print(write(study, found.path, output, places.how_to_run(study)))


def write(study: str, store: Path, output: Path | None, command: str | None) -> Path:
    """Write a study's page from its store; returns where.

    Args:
        study: its name.
        store: the file of trials.
        output: where the page goes; beside the store if None.
        command: what the page says to type to run the study again, where that is known.
    """
    from ogive.lab import Store, compare
    from ogive.report import write_page

    with Store.open_readonly(store) as found:
        spec, rows, plan = found.spec(study), found.rows(study), found.plan(study)
    place = output or store.with_name(f"{study}.html")
    return write_page(spec, rows, compare(spec, rows), place, receipts=plan, command=command)

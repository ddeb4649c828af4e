"""`ogive demo`: the question, answered on real text in minutes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ogive.cli import places
from ogive.cli.running import run

if TYPE_CHECKING:
    from ogive.lab import Study


def demo(
    quick: Annotated[
        bool, typer.Option("--quick", help="In one to three minutes; its verdicts are weak.")
    ] = False,
    seeds: Annotated[
        int | None, typer.Option(min=1, help="Paired seeds; more make the intervals narrower.")
    ] = None,
    text: Annotated[
        Path | None, typer.Option(help="A UTF-8 text of yours, instead of Python's documentation.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, one thread each. Default: 2.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="The file for the trials. Default: in ogive-runs/.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page. Default: beside the trials.")
    ] = None,
) -> None:
    """Answer the question on real text: does an activation after the projections help?

    Trains a small language model with each variant of attention and compares it, seed by seed,
    with one that has none. Stop with Ctrl-C; the same command goes on.
    """
    from ogive.lab import load_study

    study = load_study("demo", variable="quick" if quick else "study")
    minutes = _minutes(quick, changed=seeds is not None or text is not None)
    if seeds is not None:
        study = study.replace(seeds=seeds)
    if text is not None:
        study = _on(study, text)
    place = store or places.store_path(study.name)
    run(study, _intro(study, text, minutes), store=place, output=output, workers=workers)


def _on(study: Study, text: Path) -> Study:
    """The study on a text of the user's, under a name of its own."""
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", text.stem).strip("-.") or "text"
    options = {**study.task_options["text"], "file": str(text)}
    return study.replace(name=f"{study.name}-{stem}"[:100], task_options={"text": options})


def _intro(study: Study, text: Path | None, minutes: str) -> list[str]:
    where = text or "the Python documentation that ships with this interpreter"
    candidates = len(study.variants) - len(study.controls)
    lines = [
        study.question,
        f"To find out, this trains a small language model on {where}: as it is (the baseline), "
        f"with each of {candidates} nonlinearities in its attention, and with each of "
        f"{len(study.controls)} linear controls that a real gain has to beat; {study.seeds} times "
        f"each. A variant and the baseline share start and data, pair by pair.{minutes}",
    ]
    if study.quick:
        lines.append(
            "--quick means few seeds and short training: its verdicts are weak. Leave it out for "
            "verdicts to rely on."
        )
    return lines


def _minutes(quick: bool, changed: bool) -> str:
    if changed:
        return ""
    return f" Two cores take {'one to three' if quick else '7 to 18'} minutes, by their speed."

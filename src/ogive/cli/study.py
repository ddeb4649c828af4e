"""`ogive study`: run a study, or go on with it, or run one derived from it."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ogive.cli import places
from ogive.cli.paper import count
from ogive.cli.running import run

if TYPE_CHECKING:
    from ogive.lab import Study


def study(
    name: Annotated[
        str, typer.Argument(metavar="NAME|FILE", help="A study of Ogive's, or a Python file.")
    ],
    seeds: Annotated[int | None, typer.Option(min=1, help="Paired seeds.")] = None,
    tasks: Annotated[str | None, typer.Option(help="Only these: text,recall")] = None,
    sites: Annotated[
        str | None,
        typer.Option(help='Variants instead of the study\'s own: "query=gelu; hstu2024"'),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="The file's `quick` study instead of its `study`.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, one thread each. Default: 2.")
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run failed trials again.")
    ] = False,
    store: Annotated[
        Path | None, typer.Option(help="The file for the trials. Default: in ogive-runs/.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The page. Default: beside the trials.")
    ] = None,
) -> None:
    """Run a study, or go on with one; then print its verdicts and write its page."""
    from ogive.lab import load_study

    found = load_study(name, variable="quick" if quick else "study")
    place = store or places.store_path(found.name)
    found = _derived(found, tasks, sites)
    if seeds is not None:
        found = found.replace(seeds=seeds)
    run(
        found,
        _intro(found),
        store=place,
        output=output,
        workers=workers,
        retry_failed=retry_failed,
    )


def _derived(study: Study, tasks: str | None, sites: str | None) -> Study:
    """The study on other tasks or with other variants, under a name that says so."""
    changes: dict[str, Any] = {}
    if tasks is not None:
        changes["tasks"] = tuple(_pieces(tasks, ","))
        kept = changes["tasks"]
        for field in ("margin", "task_options"):
            value = getattr(study, field)
            if not isinstance(value, float | int):
                changes[field] = {task: value[task] for task in kept if task in value}
    if sites is not None:
        changes["variants"] = {text: _sites(text) for text in _pieces(sites, ";")}
        changes["controls"] = ()
    if not changes:
        return study
    return study.replace(name=_name(study, tasks, sites), **changes)


def _sites(text: str) -> str:
    """Written sites as they are; those of a preset for its name."""
    if "=" in text:
        return text
    from ogive.parts import presets  # the only thing here that needs torch

    return str(presets[text])


def _name(study: Study, tasks: str | None, sites: str | None) -> str:
    """A name that says what differs, so that the study it comes from keeps its own."""
    changed = " ".join(part for part in (tasks, sites) if part is not None)
    words = re.sub(r"[^A-Za-z0-9]+", "-", changed).strip("-")
    digest = hashlib.sha256(changed.encode()).hexdigest()[:6]
    return f"{study.name[:50]}-{words[:40].strip('-')}-{digest}"


def _pieces(text: str, mark: str) -> list[str]:
    return [piece.strip() for piece in text.split(mark) if piece.strip()]


def _intro(study: Study) -> list[str]:
    compared = f"{count(len(study.variants), 'variant')} with the baseline"
    on = ", ".join(study.tasks)
    lines = [
        study.question,
        f"Study {study.name} compares {compared} on {on}, with {count(study.seeds, 'seed')} each.",
    ]
    if study.quick:
        lines.append("This is its quick form: its verdicts are weak.")
    return lines

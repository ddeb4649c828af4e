"""`ogive parts`: the catalogue, drawn from the classes themselves."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ogive.cli.paper import console, say
from ogive.errors import unknown

if TYPE_CHECKING:
    from ogive.parts import Part

FAMILIES = ("map", "score", "weight", "preset")
OTHERS = 7  # keys whose score is 0 beside the one whose weight a curve shows
SAMPLES = 161


@dataclass(frozen=True)
class Entry:
    """One line of the catalogue, as plain values."""

    family: str
    name: str
    kind: str
    written: str
    formula: str
    source: str
    summary: str
    facts: dict[str, Any] = field(default_factory=dict)


def parts(
    name: Annotated[str | None, typer.Argument(help="A part or a preset; all if left out.")] = None,
    family: Annotated[
        str | None, typer.Option(help="Only this family: map, score, weight or preset.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON; formulas as LaTeX.")] = False,
) -> None:
    """What can sit where: formula, source, facts, and the curve of each part."""
    if family is not None and family not in FAMILIES:
        raise unknown("family", family, FAMILIES)
    entries = [one for one in _catalogue() if family in (None, one.family)]
    if name is not None:
        entries = _named(name, entries)
    if as_json:
        print(json.dumps([asdict(one) for one in entries], indent=2, ensure_ascii=False))
    elif name is None:
        _print_list(entries)
    else:
        for one in entries:
            _print_one(one)


def _named(name: str, entries: list[Entry]) -> list[Entry]:
    """The entries of that name; `gate(sigmoid)` finds gate."""
    word = name.partition("(")[0].strip()
    found = [one for one in entries if one.name == word]
    if not found:
        raise unknown("part or preset", name, {one.name for one in entries})
    return found


def _catalogue() -> Iterator[Entry]:
    from ogive.parts import catalogue, presets

    for family in ("map", "score", "weight"):
        for name, member in catalogue(family).items():
            yield _entry(family, name, member)
    for name, preset in presets.items():
        written = str(preset) or "(every site at its default)"
        yield Entry("preset", name, "", written, preset.formula, preset.source, preset.note)


def _entry(family: str, name: str, member: type[Part]) -> Entry:
    from ogive.parts import build

    written = member.example or name
    declared = asdict(build(family, written).facts)
    return Entry(
        family=family,
        name=name,
        kind=getattr(member, "kind", "") or family,
        written=_signature(member),
        formula=member.formula,
        source=member.source,
        summary=" ".join(inspect.cleandoc(member.__doc__ or "").partition("\n\n")[0].split()),
        facts={fact: value for fact, value in declared.items() if value not in (False, None)},
    )


def _signature(member: type[Part]) -> str:
    """The written form with every argument that it may take."""
    takes = [
        name if one.default is one.empty else f"{name}={_written(one.default)}"
        for name, one in inspect.signature(member).parameters.items()
    ]
    return f"{member.name}({', '.join(takes)})" if takes else member.name


def _written(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _print_list(entries: list[Entry]) -> None:
    from rich.table import Table

    from ogive.cli.formula import plain

    paper = console()
    for family in FAMILIES:
        ours = [one for one in entries if one.family == family]
        if not ours:
            continue
        table = Table(box=None, pad_edge=False, header_style="dim")
        table.add_column(family, no_wrap=True, style="bold")
        table.add_column("sites" if family == "preset" else "formula", overflow="fold")
        table.add_column("kind" if family == "map" else "source", overflow="fold")
        for one in ours:
            shown = one.written if family == "preset" else plain(one.formula)
            table.add_row(one.name, shown, one.kind if family == "map" else one.source)
        paper.print(table)
        paper.print()
    say("One of them, with its source, facts and curve: ogive parts NAME")


def _print_one(one: Entry) -> None:
    from ogive.cli.formula import plain

    kind = one.kind if one.kind in ("", one.family) else f", {one.kind}"
    say(f"{one.name} ({one.family}{kind if kind.startswith(',') else ''})")
    rows = [
        ("formula", plain(one.formula)),
        ("written", one.written),
        ("what", one.summary),
        ("source", one.source),
        ("facts", ", ".join(_fact(name, value) for name, value in one.facts.items())),
    ]
    for label, text in rows:
        if text:
            say(text, f"  {label:<8} ")
    for line in _curve(one):
        print(f"  {line}".rstrip())
    print()


def _fact(name: str, value: Any) -> str:
    word = name.replace("_", " ")
    return word if isinstance(value, bool) else f"{word} {value:g}"


def _curve(one: Entry) -> list[str]:
    """The curve of a function of one number, and for weights that of one score among eight."""
    import torch

    from ogive.cli.curve import draw
    from ogive.parts import Activation, Sizes, build, catalogue

    if one.family not in ("map", "weight"):
        return []
    part = build(one.family, catalogue(one.family)[one.name].example or one.name)
    xs = torch.linspace(-4, 4, SAMPLES)
    with torch.no_grad():
        if isinstance(part, Activation):
            title, ys = f"{part} of h", part.value(xs)
        elif one.family == "weight":
            rows = torch.cat([xs[:, None], torch.zeros(SAMPLES, OTHERS)], 1)
            part.setup(Sizes(width=1, heads=1, head_width=1))
            title = f"weight of a score s, the other {OTHERS} scores being 0"
            ys = part(rows[None, None])[0, 0, :, 0]
        else:
            return []
    return ["", *draw(xs.tolist(), ys.tolist()), f"({title})"]

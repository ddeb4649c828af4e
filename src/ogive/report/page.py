"""The report: a study's rows and comparisons as one HTML file that opens from disk.

Nothing is fetched: style, script and data are inside, and a content-security policy names the
hashes of the one style sheet and the one script, so that nothing else can run. Strings are
escaped in one place each way they enter: jinja2's autoescape for text, `json_block` for the data,
and the tree of `svg` for figures.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from ogive.errors import StoreError
from ogive.report import palette
from ogive.report.text import clean
from ogive.report.view import view

_UNSAFE = {ord(char): f"\\u{ord(char):04x}" for char in "<>&\u2028\u2029"}


def write_page(
    spec: Mapping[str, Any],
    rows: Iterable[Any],
    comparisons: Sequence[Any],
    path: str | os.PathLike[str],
    *,
    receipts: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> Path:
    """Write a study's report; the file appears whole or not at all.

    Args:
        spec: the study as plain values, from `Study.spec()` or `Store.spec(name)`.
        rows: the study's rows, from `Store.rows(name)`; none, or some, will do.
        comparisons: from `ogive.lab.compare(spec, rows)`.
        path: where the file goes; its folder is made if it is missing.
        receipts: the study's plan, from `Store.plan(name)`, for the budget receipts.
        command: what to type to run the study again; `ogive study NAME` unless given.

    Returns:
        The path written.

    Raises:
        StoreError: the file cannot be written: a full disk, a read-only folder, a folder of that
            name. An earlier report at the path is left as it was.
    """
    text = render_page(spec, rows, comparisons, receipts=receipts, command=command)
    return _write_whole(Path(path), text.encode())


def render_page(
    spec: Mapping[str, Any],
    rows: Iterable[Any],
    comparisons: Sequence[Any],
    *,
    receipts: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> str:
    """The page as text; the same rows give the same text to the last byte.

    Args:
        spec, rows, comparisons, receipts, command: as `write_page` takes them.
    """
    spec, plan = clean(dict(spec)), clean(dict(receipts or {}))
    shown = view(spec, list(rows), list(comparisons), plan)
    shown["command"] = clean(command or f"ogive study {spec.get('name', '')}".strip())
    style = palette.variables() + palette.classes() + _asset("page.css")
    script = _asset("page.js")
    data = {
        "study": _plain(spec),
        "comparisons": [_plain(one) for one in comparisons],
        "tips": shown.pop("tips"),
    }
    template = environment().from_string(_asset("page.html.j2"))
    return template.render(
        shown,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script),
        data=Markup(json_block(clean(data))),
        marks=palette.MARKS,
    )


def environment() -> Environment:
    """jinja2 as the report uses it: everything is escaped, and a missing name is an error."""
    return Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def json_block(value: Any) -> str:
    """JSON that is safe inside a script element, where `</script>` would otherwise end it."""
    return json.dumps(
        value, ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":")
    ).translate(_UNSAFE)


def _policy(style: str, script: str) -> str:
    """Run this script, apply this style, show images from data, and nothing else."""
    hashes = [
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        for text in (script, style)
    ]
    return (
        f"default-src 'none'; script-src 'sha256-{hashes[0]}'; "
        f"style-src 'sha256-{hashes[1]}'; img-src data:; base-uri 'none'; form-action 'none'"
    )


def _plain(value: Any) -> Any:
    """A comparison or a study as JSON values, NaN as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)
        }
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _asset(name: str) -> str:
    return resources.files("ogive.report").joinpath(name).read_text(encoding="utf-8")


def _write_whole(path: Path, content: bytes) -> Path:
    """Write beside the path, flush to disk, then rename: readers see the old file or the new."""
    part = path.with_name(f"{path.name}.tmp.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        why = error.strerror or str(error)
        raise StoreError(
            f"the report could not be written to {path}: {why} ({len(content):,} bytes needed); "
            "free some space or name another place for it"
        ) from error
    return path

"""Content addresses: what makes two trials the same trial.

A trial's id is a hash of everything that determines its numbers: its configuration, its seed, the
data's version and a fingerprint of the source files that compute it. Running the same study again
therefore finds its trials done, and a change of code makes new trials instead of mixing with old.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ogive.errors import StudyError

PACKAGE = Path(__file__).parents[1]

# The folders and files of the package that determine a trial's numbers …
SOURCES = ("shapes.py", "parts", "kernels", "layers", "models", "lab")
# … and those inside that do not. A new file in the lab counts until it is named here.
NEUTRAL = (
    "lab/__init__.py",
    "lab/children.py",
    "lab/grid.py",
    "lab/identity.py",
    "lab/plan.py",
    "lab/process.py",
    "lab/run.py",
    "lab/schema.py",
    "lab/shelf.py",
    "lab/stats.py",
    "lab/store.py",
    "lab/study.py",
    "lab/tuning.py",
    "lab/validate.py",
    "lab/verdict.py",
    "lab/words.py",
    "lab/worker.py",
)


def canonical(value: Any) -> str:
    """The one way to write a JSON value: keys sorted, no spaces, no NaN.

    Raises:
        StudyError: the value holds something that JSON cannot write.
    """
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StudyError(
            f"{value!r} cannot be written down ({error}); numbers that are finite, text, lists "
            "and mappings fit"
        ) from None


def trial_id(config: dict[str, Any]) -> str:
    """Sixteen hexadecimal digits that address a trial by its content."""
    return content_address(canonical(config))


def content_address(text: str) -> str:
    """Sixteen hexadecimal digits of the text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def code_fingerprint(plugins: Sequence[str] = ()) -> str:
    """Hash of the source files that determine a trial's numbers, read but never imported.

    Args:
        plugins: modules or files beyond the package that a study brings along.

    Returns:
        Sixteen hexadecimal digits; the same on every machine and for either kind of line ending.
    """
    root = PACKAGE
    named = [(path.relative_to(root).as_posix(), path) for path in _sources(root)]
    named += [(name, plugin_file(name)) for name in sorted(plugins)]
    digest = hashlib.sha256()
    for name, path in named:
        content = path.read_bytes().replace(b"\r\n", b"\n")
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()[:16]


def _sources(root: Path) -> list[Path]:
    found: list[Path] = []
    for source in SOURCES:
        place = root / source
        files = place.rglob("*") if place.is_dir() else [place]
        found += [path for path in files if path.suffix in _SUFFIXES and path.is_file()]
    neutral = {root / name for name in NEUTRAL}
    return sorted(path for path in found if path not in neutral)


_SUFFIXES = {".py", ".cpp", ".hpp", ".h", ".c"}


def plugin_file(name: str) -> Path:
    """The file of a plugin: a path ending in .py, or a module that can be found.

    Raises:
        StudyError: there is no such file or module.
    """
    if name.endswith(".py"):
        path = Path(name)
    else:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError):
            spec = None
        path = Path(spec.origin) if spec is not None and spec.origin else Path(name)
    if not path.is_file():
        raise StudyError(
            f"plugin {name!r} was not found; a path to a .py file or the name of a module fits"
        )
    return path


def finite(value: Any) -> Any:
    """A JSON value with every NaN or infinity replaced by None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value

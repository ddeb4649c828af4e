"""Data files inside installed packages, found without running any of the package's code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ogive.errors import DataError


def packaged(package: str, *inside: str, needs: str) -> Path:
    """A file that an installed package ships.

    Args:
        package: a top-level package; it is not imported.
        inside: the file's path below it.
        needs: what is read and by whom, for the message.

    Raises:
        DataError: the package is not installed, or does not ship the file.
    """
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise DataError(
            f"{needs} comes with the package {package}, which is not installed: pip install "
            "'ogive[data]' brings it"
        )
    path = Path(next(iter(spec.submodule_search_locations))).joinpath(*inside)
    if not path.is_file():
        raise DataError(
            f"{needs} comes with the package {package}, and this version has no {path}: pip "
            "install 'ogive[data]' brings one that has"
        )
    return path

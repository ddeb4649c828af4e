"""Optional packages: loaded when first needed, and named with their extra where missing."""

from __future__ import annotations

import importlib
from typing import Any

from ogive.errors import MissingPackage


def needed(module: str, install: str) -> Any:
    """The module of an optional package.

    Args:
        module: what to import (`transformers`, `transformers.masking_utils`).
        install: what pip installs to bring it: an extra of Ogive, `ogive[hf]`.

    Raises:
        MissingPackage: it is not installed; the message says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != package:
            raise
        raise MissingPackage(
            f"this needs {package}, which is not installed: pip install '{install}'"
        ) from None

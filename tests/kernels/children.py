"""Processes that tests start: what they import, and whether a sanitizer is in them."""

from __future__ import annotations

import ctypes
import os
import sys

_HERE = """
import sys
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable_skbc")]
sys.path[:0] = {path!r}
"""


def here() -> str:
    """First lines of a child's code: no editable install of another checkout comes first."""
    return _HERE.format(path=[p for p in sys.path if p])


def sanitizer() -> str | None:
    """The name of the compiler's sanitizer whose runtime this process holds."""
    if os.name != "posix":
        return None
    held = ctypes.CDLL(None)
    return next((name for name in ("asan", "tsan") if hasattr(held, f"__{name}_init")), None)

"""The lab: studies of paired trials, the store that keeps them, and verdicts about them.

Names load on first use, so that reading results never waits for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ogive.lab.run import Outcome, Progress, run_study
    from ogive.lab.shelf import built_in_studies, load_study
    from ogive.lab.store import Row, Store
    from ogive.lab.study import Arm, Study
    from ogive.lab.verdict import Comparison, compare
    from ogive.lab.words import sentence

__all__ = [
    "Arm",
    "Comparison",
    "Outcome",
    "Progress",
    "Row",
    "Store",
    "Study",
    "built_in_studies",
    "compare",
    "load_study",
    "run_study",
    "sentence",
]

_HOMES = {
    "Arm": "study",
    "Comparison": "verdict",
    "Outcome": "run",
    "Progress": "run",
    "Row": "store",
    "Store": "store",
    "Study": "study",
    "built_in_studies": "shelf",
    "compare": "verdict",
    "load_study": "shelf",
    "run_study": "run",
    "sentence": "words",
}


def __getattr__(name: str) -> Any:
    """Load a name on its first use (PEP 562)."""
    if name not in _HOMES:
        message = f"module 'ogive.lab' has no attribute {name!r} (it has: {', '.join(__all__)})"
        raise AttributeError(message, name=name)
    value = getattr(importlib.import_module(f"ogive.lab.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})

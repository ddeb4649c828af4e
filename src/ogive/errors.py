"""Every error that Ogive raises on purpose, in one small tree.

    OgiveError
    ├── ArgumentError (ValueError)        a value that does not fit
    │   └── UnknownName                   a name that nothing answers to
    ├── ArgumentTypeError (TypeError)     a type that does not fit
    ├── ImplUnavailable (RuntimeError)    the named implementation cannot do this, and why
    ├── DataError (ValueError)            a file or data set that cannot be used
    ├── StoreError (RuntimeError)         the file that holds the trials cannot be used
    ├── StudyError (ValueError)           a study that cannot be run as written
    │   └── BudgetError                   no size of the model meets the budget
    ├── MissingPackage (ImportError)      an optional package; says which extra brings it
    └── TrialDiverged (ArithmeticError)   a loss that stopped being a number

`MaskWarning` (UserWarning) is warned, not raised: a mask that is legal and hardly meant.

Each message says what came, what fits, and where. The command line prints it and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class OgiveError(Exception):
    """Root of the tree: catch this to catch all of Ogive's own errors."""


class ArgumentError(OgiveError, ValueError):
    """An argument whose value does not fit."""


class UnknownName(ArgumentError):
    """A name that nothing answers to; the message lists the names that would fit."""


class ArgumentTypeError(OgiveError, TypeError):
    """An argument whose type (or dtype, or device) does not fit."""


class ImplUnavailable(OgiveError, RuntimeError):
    """An implementation asked for by name that cannot do what was asked; says what it lacks."""


class DataError(OgiveError, ValueError):
    """A file or data set that is empty, too short, missing or of the wrong kind."""


class StoreError(OgiveError, RuntimeError):
    """The file of trials cannot be opened, read or written."""


class StudyError(OgiveError, ValueError):
    """A study that cannot be run as it is written."""


class BudgetError(StudyError):
    """No size of the model comes within the tolerance of the budget."""


class MissingPackage(OgiveError, ImportError):
    """An optional package that is not installed; says which extra of Ogive brings it."""


class TrialDiverged(OgiveError, ArithmeticError):
    """A training loss that became NaN or infinite; says at which step."""


class MaskWarning(UserWarning):
    """A mask that hides the whole batch or all but the future: likely of the other polarity."""


def unknown(kind: str, came: str, known: Iterable[str]) -> UnknownName:
    """The error for a name that nothing answers to.

    Args:
        kind: what was looked for ("weight", "task", "site" …).
        came: the name that came.
        known: the names that fit.

    Returns:
        An `UnknownName` to raise, with the nearest known name first where one is near.
    """
    names = sorted(known)
    near = difflib.get_close_matches(came, names, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    listed = ", ".join(names) if names else "none"
    return UnknownName(f"unknown {kind} {came!r}{hint} (known: {listed})")

"""Where studies come from: those that ship with Ogive, by name, and yours, by path."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterable
from pathlib import Path

from ogive.errors import OgiveError, StudyError, unknown
from ogive.lab.identity import PACKAGE
from ogive.lab.study import FIELDS, Study


def load_study(name_or_path: str | Path, *, variable: str = "study") -> Study:
    """Read a study from its Python file.

    Args:
        name_or_path: the name of a study that comes with Ogive, or a path ending in .py.
        variable: which global of the file is the study.

    Raises:
        UnknownName: nothing of that name; the message lists the names there are.
        StudyError: the file cannot be read or run, or holds no `Study` of that name.
    """
    path = _find(str(name_or_path))
    try:
        names = runpy.run_path(str(path))
    except OgiveError as error:
        raise type(error)(f"{path}: {_line(error, path)}{error}") from error
    except (Exception, SystemExit) as error:
        raise StudyError(f"{path}: {_line(error, path)}{_explain(error)}") from error
    study = names.get(variable)
    if not isinstance(study, Study):
        others = _list(name for name, value in names.items() if isinstance(value, Study))
        raise StudyError(
            f"{path} holds no study named {variable!r} (studies in it: {others}); write "
            f"`{variable} = ogive.lab.Study(...)`"
        )
    return study


def built_in_studies() -> dict[str, Path]:
    """The studies that come with Ogive, by name: a wheel's copy, or the checkout's `studies/`."""
    for folder in (PACKAGE / "studies", PACKAGE.parents[1] / "studies"):
        files = [path for path in sorted(folder.glob("*.py")) if not path.name.startswith("_")]
        if files:
            return {path.stem: path for path in files}
    return {}


def _find(name: str) -> Path:
    known = built_in_studies()
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.suffix == ".py" and path.is_file():
        return path
    if path.suffix == ".py" or len(path.parts) > 1:
        raise StudyError(
            f"there is no study in {name}; a path to a .py file fits, or one of: {_list(known)}"
        )
    raise unknown("study", name, known)


def _line(error: BaseException, path: Path) -> str:
    """Which line of the file raised, as far as that can be told."""
    trace, line = error.__traceback__, getattr(error, "lineno", None)
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"line {line}: " if line else ""


def _explain(error: BaseException) -> str:
    typo = re.fullmatch(r"Study\.__init__\(\) got an unexpected .* '(\w+)'.*", str(error))
    if isinstance(error, TypeError) and typo:
        return str(unknown("field of a study", typo.group(1), FIELDS))
    return f"{type(error).__name__}: {error}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"

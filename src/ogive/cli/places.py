"""Where stores and reports are, and which study a verb is about. Never imports torch."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ogive.errors import StoreError, unknown

if TYPE_CHECKING:
    from ogive.lab import Store

SUFFIX = ".sqlite"


def folder() -> Path:
    """Where runs are kept: the environment's OGIVE_RUNS, or `ogive-runs` here."""
    return Path(os.environ.get("OGIVE_RUNS") or "ogive-runs")


def store_path(study: str) -> Path:
    """Where a study's trials are kept unless --store says otherwise."""
    return folder() / f"{study}{SUFFIX}"


def report_path(study: str) -> Path:
    """Where a study's page is written unless --output says otherwise."""
    return folder() / f"{study}.html"


def stores(given: Path | None = None) -> list[Path]:
    """The store that was named, or all of the folder's, the last one written to first.

    Raises:
        StoreError: there is none; says how to get one.
    """
    if given is not None:
        return [given]
    found = sorted(folder().glob(f"*{SUFFIX}"), key=_touched, reverse=True)
    if not found:
        raise StoreError(
            f"no study has run yet: {folder()}{os.sep} holds no store. `{command('demo')}` runs "
            "the first one; --store names a store that is somewhere else"
        )
    return found


def open_study(name: str | None, given: Path | None) -> tuple[Store, str]:
    """The study a verb is about, and its store open for reading (the caller closes it).

    Args:
        name: of the study; None for the last one worked on.
        given: the store, where --store named one.

    Raises:
        UnknownName: no store here holds a study of that name; lists those there are.
        StoreError: a store that cannot be read.
    """
    from ogive.lab import Store

    if name is not None and given is None and store_path(name).exists():
        given = store_path(name)
    known: list[str] = []
    unreadable: list[StoreError] = []
    for path in stores(given):
        try:
            store = Store.open_readonly(path)
        except StoreError as error:
            unreadable.append(error)
            continue
        here = store.studies()
        if name in here or (name is None and here):
            return store, name or max(here, key=lambda study: _latest(store, study))
        known += here
        store.close()
    if unreadable and not known:
        raise unreadable[0]
    if name is None:
        raise StoreError(f"{stores(given)[0]} holds no study yet; `{command('demo')}` runs one")
    raise unknown("study", name, known)


def command(*words: str) -> str:
    """How to call ogive again from here, as this process was called."""
    return shlex.join([*_program(), *words])


def again() -> str:
    """The very command that is running."""
    return command(*sys.argv[1:])


def how_to_run(study: str) -> str | None:
    """What to type for a study that comes with Ogive; None for one of the user's."""
    from ogive.lab import built_in_studies

    name = study.removesuffix("-quick")
    if name not in built_in_studies():
        return None
    verb = "demo" if name == "demo" else f"study {name}"
    return f"ogive {verb}{' --quick' if study != name else ''}"


def _program() -> list[str]:
    called = Path(sys.argv[0])
    if called.name == "__main__.py":
        return ["python", "-m", "ogive"]
    on_path = shutil.which(called.name)
    if on_path and Path(on_path).resolve() == called.resolve():
        return [called.name]
    try:
        return [str(called.absolute().relative_to(Path.cwd()))]
    except ValueError:
        return [str(called)]


def _touched(path: Path) -> float:
    """When a store was last written to; its log is written first."""
    log = path.with_name(f"{path.name}-wal")
    return max((file.stat().st_mtime for file in (path, log) if file.exists()), default=0.0)


def _latest(store: Store, study: str) -> float:
    times = [row.finished or row.started or row.created for row in store.rows(study)]
    return max(times, default=store.created(study))

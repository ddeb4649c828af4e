"""The worker: claim a trial, run it, record it, again. Every executor runs this same loop."""

from __future__ import annotations

import importlib
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ogive.errors import StoreError, StudyError, TrialDiverged
from ogive.lab import process
from ogive.lab.identity import PACKAGE, code_fingerprint, finite
from ogive.lab.plan import load_plugins
from ogive.lab.store import LEASE_SECONDS, Claim, Store

Trainer = Callable[[dict[str, Any]], dict[str, Any]]
_LONGEST_WAIT = 0.25


def work(
    path: str, study: str, code: str, boss: int, attempts: int, trainer: str, plugins: list[str]
) -> dict[str, str]:
    """Run a study's trials, until the parent ends this process.

    Args:
        path: the store's file.
        study: whose trials.
        code: the fingerprint of the sources that the study was planned with.
        boss: process id of the run that started this worker.
        attempts: after how many deaths of its worker a trial has failed.
        trainer: `module:function` that turns a configuration into a result.
        plugins: what to import first.

    Returns:
        Only where it cannot go on: {"type", "message"} of the error that the run must raise.
    """
    try:
        load_plugins(plugins)
        run_trial = named(trainer)
        if code_fingerprint(plugins) != code:
            raise StudyError(
                f"the sources changed after study {study!r} was planned; start it again"
            )
        with Store(path) as store:
            _loop(store, (study, process.identity(boss), code, attempts), run_trial)
    except Exception as error:
        return confess(error)
    raise AssertionError("the loop ends with its process only")


def plan(planner: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Make a study's plan: {"plan": …}, or {"type", "message"} of the error."""
    try:
        return {"plan": named(planner)(spec)}
    except Exception as error:
        return confess(error)


def load(trainer: str) -> dict[str, str]:
    """Import a trainer while there is nothing to do yet."""
    try:
        named(trainer)
    except Exception as error:
        return confess(error)
    return {}


def named(reference: str) -> Callable[..., Any]:
    """What `module:function` refers to."""
    module, _, function = reference.partition(":")
    return getattr(importlib.import_module(module), function)


def confess(error: Exception) -> dict[str, str]:
    """An error as JSON, with its trace for those that nobody raised on purpose."""
    trace = "".join(traceback.format_exception(error))
    return {"type": type(error).__name__, "message": str(error), "trace": trace}


def _loop(store: Store, terms: tuple[str, str, str, int], trainer: Trainer) -> None:
    wait = 0.01
    while True:
        claim = store.claim(*terms)
        if claim is None:
            time.sleep(wait)
            wait = min(2 * wait, _LONGEST_WAIT)
            continue
        wait = 0.01
        with _Heart(store.path, claim):
            _one(store, claim, trainer)


def _one(store: Store, claim: Claim, trainer: Trainer) -> None:
    """Run one trial; whatever it raises is a failed row, not the end of the worker."""
    try:
        result = trainer(claim.config)
        score = finite(result["score"])
        if score is None:
            raise TrialDiverged(f"its score is {result['score']}")
    except StoreError:
        raise
    except TrialDiverged as error:
        store.fail(claim, f"diverged: {error}", {"diverged": True})
    except Exception as error:
        store.fail(claim, f"{type(error).__name__}: {error}{_place(error)}")
    else:
        store.finish(claim, result)


def _place(error: Exception) -> str:
    """Where the package raised, as ` (lab/train.py:88)`."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(PACKAGE):
            return f" ({path.relative_to(PACKAGE).as_posix()}:{frame.lineno})"
    return ""


class _Heart:
    """Beats while a trial runs, for runs that cannot see this process (another container)."""

    def __init__(self, path: Path, claim: Claim) -> None:
        self.path, self.claim = path, claim
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> None:
        self.thread.start()

    def __exit__(self, *exception: object) -> None:
        self.over.set()

    def _beat(self) -> None:
        while not self.over.wait(LEASE_SECONDS / 6):
            try:
                with Store(self.path) as store:
                    store.beat(self.claim)
            except StoreError:
                continue  # the trial's own commit will say what is wrong

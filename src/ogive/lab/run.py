"""Run a study, or go on with it: plan, start workers, hand out trials, watch, judge.

The run itself holds nothing: the store does. Whoever starts the same study again, at once or after
a power cut, goes on where it stood, and two runs at once share the work.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ogive import errors
from ogive.errors import OgiveError, StudyError
from ogive.lab import grid
from ogive.lab.children import Child
from ogive.lab.store import ATTEMPTS, Row, Store
from ogive.lab.study import Study
from ogive.lab.verdict import Comparison, compare

TICK = 0.05
REPORT_EVERY = 0.25
DEATHS_IN_A_ROW = 10  # workers that die before any trial ends: something else is wrong
TRAINER = "ogive.lab.train:train"
PLANNER = "ogive.lab.plan:make_plan"


@dataclass(frozen=True)
class Progress:
    """How far a run is. `total` counts comparisons that are not planned yet; times in seconds."""

    phase: str
    done: int
    running: int
    failed: int
    total: int
    elapsed: float
    eta: float | None
    rows: list[Row]
    comparisons: list[Comparison]


@dataclass(frozen=True)
class Outcome:
    """What a run came to; `executed` counts the trials that ended while it watched."""

    spec: dict[str, Any]
    rows: list[Row]
    comparisons: list[Comparison]
    executed: int
    failed: int
    seconds: float


def run_study(
    study: Study,
    *,
    store_path: str | Path,
    workers: int = 2,
    seeds: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
    retry_failed: bool = False,
    attempts: int = ATTEMPTS,
    trial_timeout: float | None = None,
    trainer: str = TRAINER,
    planner: str = PLANNER,
) -> Outcome:
    """Run what is missing of a study and judge it.

    Args:
        study: what to run.
        store_path: the file that keeps the trials; made where there is none.
        workers: processes, one thread each.
        seeds: comparison seeds, where not the study's own; more than before adds what is missing.
        on_progress: called about four times a second, and once at the end.
        retry_failed: run trials again that failed earlier.
        attempts: after how many deaths of its worker a trial has failed.
        trial_timeout: seconds after which a trial is ended and has failed; None waits.
        trainer, planner: `module:function` to run a trial and to plan a study.

    Raises:
        KeyboardInterrupt: Ctrl-C; workers are stopped and their trials given back.
        SystemExit: on SIGTERM (143) or SIGHUP (129), likewise.
        StoreError: the store cannot be used; nothing that was finished is lost.
        OgiveError: the study cannot be planned.
    """
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 1024:
        raise StudyError(f"workers is {workers!r}; a whole number from 1 to 1024 fits")
    study = study if seeds is None else study.replace(seeds=seeds)
    run = _Run(study.spec(), Path(store_path), on_progress or (lambda progress: None))
    run.attempts, run.timeout, run.trainer = attempts, trial_timeout, trainer
    with _signals_end_it(), Store(store_path) as run.store:
        try:
            run.prepare(workers, planner, retry_failed)
            run.watch(workers)
        finally:
            run.stop()
        return run.outcome()


class _Run:
    """The state of a run: the study, its store, its children."""

    store: Store
    attempts: int
    timeout: float | None
    trainer: str

    def __init__(
        self, spec: dict[str, Any], path: Path, on_progress: Callable[[Progress], None]
    ) -> None:
        self.spec, self.path, self.name = spec, path, spec["name"]
        self.on_progress = on_progress
        self.began = time.monotonic()
        self.plan: dict[str, Any] = {}
        self.rows: list[Row] = []
        self.comparisons: list[Comparison] = []
        self.children: list[Child] = []
        self.began_at = time.time()  # as rows tell time
        self.deaths_in_a_row = 0
        self.first_seen: dict[tuple[str, int], float] = {}
        self.total = 0
        self.last_change, self.last_report = -1, 0.0

    # --- before the trials -----------------------------------------------------------------------

    def prepare(self, workers: int, planner: str, retry_failed: bool) -> None:
        """Have one worker plan, while the others load what they need, and record the study."""
        self.children = [Child() for _ in range(workers)]
        first, *others = self.children
        first.ask("ogive.lab.worker:plan", planner, self.spec)
        for child in others:
            child.ask("ogive.lab.worker:load", self.trainer)
        while (told := first.answer()) is None:
            if first.poll() is not None:
                raise StudyError(f"planning study {self.name!r} failed: {first.epitaph()}")
            self.report("planning")
            time.sleep(TICK)
        if "plan" not in told:
            raise reborn(told)
        self.plan = told["plan"]
        self.store.begin_study(self.spec, self.plan)
        if retry_failed:
            self.store.retry_failed(self.name)
        self.advance()
        if not self.finished():
            for child in self.children:
                self.put_to_work(child)

    # --- while they run --------------------------------------------------------------------------

    def watch(self, workers: int) -> None:
        """Keep the workers going until nothing is pending or running."""
        while not self.finished():
            self.replace_children(workers)
            if self.store.changes() != self.last_change:
                self.advance()
            self.end_overdue()
            self.report("running")
            time.sleep(TICK)

    def finished(self) -> bool:
        """Whether every trial has ended; trials that another run is working on have not."""
        return all(row.state in ("done", "failed") for row in self.rows)

    def advance(self) -> None:
        """Read what has changed, and add the trials that it decides (rungs, comparisons)."""
        self.last_change = self.store.changes()
        over = sum(row.state in ("done", "failed") for row in self.rows)
        ladders = self.link_what_is_missing()
        tuning = sum(not ladder.tuned.settled for ladder in ladders.values())
        self.total = len(self.rows) + tuning * self.spec["seeds"]
        if over != sum(row.state in ("done", "failed") for row in self.rows):
            self.deaths_in_a_row = 0
        self.comparisons = compare(self.spec, self.rows)

    def link_what_is_missing(self) -> dict[grid.Key, grid.Ladder]:
        """Add trials until there are no more to add: a trial may turn out to be done already."""
        while True:
            self.rows = self.store.rows(self.name)
            ladders = grid.ladders(self.plan, self.rows)
            wanted = grid.wanted(self.plan, self.spec["seeds"], ladders)
            known = {(row.id, row.variant, row.role) for row in self.rows}
            missing = [one for one in wanted if (one.id, one.variant, one.role) not in known]
            outdated = grid.outdated(self.rows, ladders)
            self.store.link(self.name, self.plan, missing, outdated)
            if not missing and not outdated:
                return ladders

    def replace_children(self, workers: int) -> None:
        """Bury workers that died, give back what they held, and start others in their place."""
        for child in self.children:
            told = child.answer() or {}
            if "message" in told:
                raise reborn(told)
        for child in [child for child in self.children if child.poll() is not None]:
            self.children.remove(child)
            self.bury(child)
        while len(self.children) < workers:
            self.children.append(Child())
            self.put_to_work(self.children[-1])

    def put_to_work(self, child: Child) -> None:
        """Have a child run trials until it is ended."""
        code, plugins = self.plan["code"], self.spec["plugins"]
        terms = (str(self.path.absolute()), self.name, code, os.getpid(), self.attempts)
        child.ask("ogive.lab.worker:work", *terms, self.trainer, plugins)

    def bury(self, child: Child) -> None:
        """A worker that died: its death counts against the trial it ran."""
        epitaph = child.epitaph()
        child.collect()
        self.store.bury(self.name, child.pid, epitaph, self.attempts)
        self.last_change = -1
        self.deaths_in_a_row += 1
        if self.deaths_in_a_row >= DEATHS_IN_A_ROW:
            raise StudyError(
                f"study {self.name!r}: {DEATHS_IN_A_ROW} workers in a row died before any trial "
                f"ended; the last: {epitaph}"
            )

    def end_overdue(self) -> None:
        """End workers whose trial has run longer than is allowed; their trials have failed."""
        if self.timeout is None:
            return
        held = self.store.held_by((child.pid for child in self.children), self.name)
        now = time.monotonic()
        self.first_seen = {claim: self.first_seen.get(claim, now) for claim in held.values()}
        for child in list(self.children):
            claim = held.get(child.pid)
            if claim is not None and now - self.first_seen[claim] > self.timeout:
                child.kill()
                child.collect()
                self.children.remove(child)
                reason = f"it ran longer than the {self.timeout:g} s allowed"
                self.store.bury(self.name, child.pid, reason, fatal=True)
                self.last_change = -1  # SQLite announces the changes of others only

    def report(self, phase: str) -> None:
        """Tell the caller, at most every quarter of a second."""
        now = time.monotonic()
        if phase != "done" and now - self.last_report < REPORT_EVERY:
            return
        self.last_report = now
        states = [row.state for row in self.rows]
        self.on_progress(
            Progress(
                phase=phase,
                done=states.count("done"),
                running=states.count("running"),
                failed=states.count("failed"),
                total=self.total,
                elapsed=now - self.began,
                eta=self.eta(states),
                rows=self.rows,
                comparisons=self.comparisons,
            )
        )

    def eta(self, states: list[str]) -> float | None:
        """Seconds left, from what the latest trials took; None before the first has ended."""
        took = [
            row.result.get("seconds") for row in self.rows if row.state == "done" and row.result
        ]
        known = [seconds for seconds in took[-20:] if seconds is not None]
        if not known or not self.children:
            return None
        left = self.total - states.count("done") - states.count("failed")
        busy = max(states.count("running"), len(self.children))
        return max(0.0, (left - states.count("running") / 2)) * sum(known) / len(known) / busy

    # --- at the end ------------------------------------------------------------------------------

    def stop(self) -> None:
        """End all children now and give back what they held; their work on it is lost."""
        for child in self.children:
            child.kill()
        for child in self.children:
            child.collect()
        if self.children and self.plan:
            with contextlib.suppress(OgiveError), Store(self.path) as store:
                for child in self.children:
                    store.bury(self.name, child.pid, None)
        self.children = []

    def outcome(self) -> Outcome:
        """The rows as they stand, and the last report."""
        self.advance()
        self.report("done")
        over = {r.id for r in self.rows if r.finished is not None and r.finished >= self.began_at}
        return Outcome(
            spec=self.spec,
            rows=self.rows,
            comparisons=self.comparisons,
            executed=len(over),
            failed=sum(row.state == "failed" for row in self.rows),
            seconds=time.monotonic() - self.began,
        )


def reborn(told: dict[str, str]) -> Exception:
    """A child's error as it was; with its trace where nobody raised it on purpose."""
    kind = getattr(errors, told["type"], None)
    if isinstance(kind, type) and issubclass(kind, OgiveError):
        return kind(told["message"])
    return RuntimeError(f"a child process failed:\n{told['trace']}")


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """Let SIGTERM and a terminal that hangs up end the run in order, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    names = [name for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), leave) for name in names}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)

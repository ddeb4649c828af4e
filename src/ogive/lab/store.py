"""The store: one SQLite file that is the only truth about which trials exist, run and are done.

    studies       a study as it was written, and the plan it was run by
    trials        one line per configuration, addressed by content, shared by all studies
    study_trials  which trials a study consists of, and in which order they are run

    pending ──claim──> running ──finish──> done
       ^                  │ └────fail────> failed (with its reason)
       └── owner died ────┘

A claim carries a token. When a worker dies (see `ogive.lab.process`) its trial goes back, and the
token moves on, so that whoever held the old claim cannot commit any more. A trial whose worker died
`attempts` times while its run was still alive has failed: it is the trial that kills them.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ogive.errors import StudyError, unknown
from ogive.lab import process
from ogive.lab.identity import canonical, content_address, finite, trial_id
from ogive.lab.schema import connect, connect_readonly, explained, writing

ATTEMPTS = 3
LEASE_SECONDS = 120.0  # of an unchanging heartbeat, where an owner's death cannot be seen
GRACE_SECONDS = 2.0
STATES = ("pending", "running", "done", "failed")


@dataclass(frozen=True)
class Trial:
    """A trial that a study asks for: what to run, for whom, and when in the order."""

    config: dict[str, Any]
    variant: str
    role: str
    position: int

    @property
    def id(self) -> str:
        """Its content address."""
        return trial_id(self.config)


@dataclass(frozen=True)
class Claim:
    """The right to run one trial, until somebody else gets a later token."""

    id: str
    token: int
    config: dict[str, Any]


@dataclass(frozen=True)
class Row:
    """A trial of a study as the store has it. Times are seconds since 1970, for display only."""

    study: str
    variant: str
    role: str
    position: int
    id: str
    config: dict[str, Any]
    state: str
    reason: str | None
    result: dict[str, Any] | None
    deaths: int
    created: float
    started: float | None
    finished: float | None

    @property
    def seed(self) -> int:
        """The seed it was, or is to be, trained with."""
        return self.config["seed"]

    @property
    def task(self) -> str:
        """The name of its task."""
        return self.config["task"]["name"]

    @property
    def learning_rate(self) -> float:
        """Its highest learning rate."""
        return self.config["train"]["lr"]


class Store:
    """A store that is open; close it or use it as a context. One per thread and process.

    Raises:
        StoreError: from any method, with the path and what to do.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.readonly = False
        self._stale: dict[str, tuple[int, int, float]] = {}
        self._connection: sqlite3.Connection | None = connect(self.path)

    @classmethod
    def open_readonly(cls, path: str | Path) -> Store:
        """A store to read from while others write; never creates or changes a file."""
        store = cls.__new__(cls)
        store.path, store.readonly, store._connection = Path(path), True, None
        connect_readonly(store.path).close()
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; harmless when repeated."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    # --- reading ---------------------------------------------------------------------------------

    def studies(self) -> list[str]:
        """Names of the studies, the oldest first."""
        with self._reading() as connection:
            found = connection.execute("SELECT name FROM studies ORDER BY created, name")
            return [name for (name,) in found]

    def spec(self, study: str) -> dict[str, Any]:
        """A study as it was last run (`Study.spec`)."""
        return json.loads(self._study(study, "spec"))

    def plan(self, study: str) -> dict[str, Any] | None:
        """What was worked out for the study before its trials began (`ogive.lab.plan`)."""
        text = self._study(study, "plan")
        return None if text is None else json.loads(text)

    def created(self, study: str) -> float:
        """When the study was first run, in seconds since 1970."""
        return self._study(study, "created")

    def counts(self, study: str) -> dict[str, int]:
        """How many of a study's trials are in each state, and in total."""
        with self._reading() as connection:
            found = dict(connection.execute(_COUNTS, (study,)).fetchall())
        counts = {state: found.get(state, 0) for state in STATES}
        return {**counts, "total": sum(counts.values())}

    def rows(self, study: str, role: str | None = None) -> list[Row]:
        """A study's trials: those of tuning first, then seed by seed."""
        with self._reading() as connection:
            found = connection.execute(_ROWS, (study, role, role)).fetchall()
            return [_row(study, line) for line in found]

    def changes(self) -> int:
        """A number that changes when another connection has written."""
        with self._reading() as connection:
            return connection.execute("PRAGMA data_version").fetchone()[0]

    # --- studies ---------------------------------------------------------------------------------

    def begin_study(self, spec: dict[str, Any], plan: dict[str, Any]) -> None:
        """Record a study about to run. A new plan drops the links to trials of the old one.

        Trials themselves are never deleted: what they cost may serve another study. Trials of
        seeds that are no longer asked for are left out as long as nobody has begun them. The spec
        keeps its order, which is the study's.
        """
        canonical(spec)  # raises for what JSON cannot write
        name, written = spec["name"], canonical(plan)
        with self._writing() as connection:
            old = connection.execute("SELECT plan FROM studies WHERE name = ?", (name,)).fetchone()
            connection.execute(_SAVE_STUDY, (name, json.dumps(spec), written, time.time()))
            if old is not None and old[0] != written:
                connection.execute("DELETE FROM study_trials WHERE study = ?", (name,))
            connection.execute(_DROP_SEEDS, (name, spec["seeds"]))

    def link(
        self, study: str, plan: dict[str, Any], add: Sequence[Trial], drop: Iterable[Row] = ()
    ) -> int:
        """Make trials part of a study, sharing those that exist, and take others out of it.

        Returns:
            How many were added.

        Raises:
            StudyError: another run has given the study another plan meanwhile.
        """
        now, written = time.time(), canonical(plan)
        with self._writing() as connection:
            found = connection.execute("SELECT plan FROM studies WHERE name = ?", (study,))
            if found.fetchone() != (written,):
                raise StudyError(
                    f"study {study!r} was started with other contents while this one ran; give one "
                    "of them another name, or another store"
                )
            for row in drop:
                connection.execute(_DROP_LINK, (study, row.id, row.variant, row.role))
            lines = [(trial.id, canonical(trial.config), now) for trial in add]
            connection.executemany(_ADD_TRIAL, lines)
            links = [(study, one.id, one.variant, one.role, one.position) for one in add]
            return connection.executemany(_ADD_LINK, links).rowcount if links else 0

    def retry_failed(self, study: str) -> int:
        """Make a study's failed trials pending again; returns how many."""
        with self._writing() as connection:
            return connection.execute(_RETRY, (study,)).rowcount

    # --- trials ----------------------------------------------------------------------------------

    def claim(self, study: str, owner: str, code: str, attempts: int = ATTEMPTS) -> Claim | None:
        """Take the next trial of a study: a pending one, or one whose owner has died.

        Args:
            study: whose trials to run.
            owner: who runs it, from `process.identity()`.
            code: fingerprint of the sources that would run it; trials of others are left alone.
            attempts: after how many deaths of its worker a trial has failed.

        Returns:
            None where nothing is left to take; others may still be running some.
        """
        with self._reading() as connection:  # a look that needs no lock: mostly nothing is dead
            orphans = self._orphans(connection, study)
            waiting = connection.execute(_PENDING, (study, code)).fetchone()
        if not orphans and waiting is None:
            return None
        with self._writing() as connection:
            for trial, token, crashed in orphans:
                _give_back(connection, trial, token, crashed and "its worker died", attempts)
            found = connection.execute(_PENDING, (study, code)).fetchone()
            if found is None:
                return None
            trial, token, config = found
            connection.execute(_TAKE, (owner, time.time(), trial))
            return Claim(trial, token + 1, json.loads(config))

    def finish(self, claim: Claim, result: dict[str, Any]) -> bool:
        """Record a claim's result; False, and nothing recorded, where the claim was lost."""
        text = canonical(finite(result))
        line = (text, digest(claim.id, text), time.time(), claim.id, claim.token)
        with self._writing() as connection:
            return connection.execute(_FINISH, line).rowcount == 1

    def fail(self, claim: Claim, reason: str, result: dict[str, Any] | None = None) -> bool:
        """Record that a claim's trial failed and why; False where the claim was lost."""
        text = None if result is None else canonical(finite(result))
        line = (reason, text, digest(claim.id, text), time.time(), claim.id, claim.token)
        with self._writing() as connection:
            return connection.execute(_FAIL, line).rowcount == 1

    def beat(self, claim: Claim) -> None:
        """Show that a claim's worker lives, for those who cannot see its process."""
        with self._writing() as connection:
            connection.execute(_BEAT, (claim.id, claim.token))

    def bury(
        self,
        study: str,
        pid: int,
        reason: str | None,
        attempts: int = ATTEMPTS,
        fatal: bool = False,
    ) -> list[str]:
        """Give back what a dead worker of this very process was running.

        Args:
            study: whose trials it ran.
            pid: the worker's process id.
            reason: how it died; None where it was stopped on purpose, which does not count.
            attempts: after how many deaths a trial has failed.
            fatal: fail the trial now, however few its deaths.

        Returns:
            The ids of the trials it held.
        """
        mine = json.loads(process.identity())
        with self._writing() as connection:
            held = []
            for trial, token, owner, _ in connection.execute(_RUNNING, (study,)).fetchall():
                who = json.loads(owner)
                same = all(
                    who[key] == mine[key] for key in ("machine", "boot", "boss", "boss_start")
                )
                if same and who["pid"] == pid:
                    _give_back(connection, trial, token, reason, 1 if fatal else attempts)
                    held.append(trial)
            return held

    def held_by(self, pids: Iterable[int], study: str) -> dict[int, tuple[str, int]]:
        """Which trial (and token) each of this machine's processes is running."""
        wanted = set(pids)
        with self._reading() as connection:
            running = connection.execute(_RUNNING, (study,)).fetchall()
        held = {json.loads(owner)["pid"]: (trial, token) for trial, token, owner, _ in running}
        return {pid: held[pid] for pid in wanted & held.keys()}

    # --- inside ----------------------------------------------------------------------------------

    def _orphans(self, connection: sqlite3.Connection, study: str) -> list[tuple[str, int, bool]]:
        """Running trials whose owner is dead: id, token, and whether it crashed by itself."""
        found = []
        for trial, token, owner, beat in connection.execute(_RUNNING, (study,)).fetchall():
            lives, bossed = process.alive(owner), process.supervisor_alive(owner)
            if lives and bossed:
                continue
            # A run that lives buries its own workers: it knows how they died. A worker whose run
            # is dead leaves at once, unless it was stopped; it could not commit when it wakes up.
            patience = LEASE_SECONDS if lives is None else GRACE_SECONDS if lives or bossed else 0.0
            if self._stood_still(trial, token, beat, patience):
                found.append((trial, token, lives is False and bossed is True))
        return found

    def _stood_still(self, trial: str, token: int, beat: int, seconds: float) -> bool:
        """Whether this process has seen the same heartbeat for so long, by its own clock."""
        now, seen = time.monotonic(), self._stale.get(trial)
        if seen is None or seen[:2] != (token, beat):
            seen = self._stale[trial] = (token, beat, now)
        return now - seen[2] >= seconds

    def _study(self, study: str, column: str) -> Any:
        with self._reading() as connection:
            query = f"SELECT {column} FROM studies WHERE name = ?"
            found = connection.execute(query, (study,)).fetchone()
        if found is None:
            raise unknown("study in this store", study, self.studies())
        return found[0]

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with explained(self.path):
            if self._connection is not None:
                yield self._connection
                return
            with contextlib.closing(connect_readonly(self.path)) as connection:
                yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with explained(self.path):
            if self._connection is None:
                raise sqlite3.OperationalError("the store is closed or open for reading only")
            with writing(self._connection):
                yield self._connection


def _give_back(
    connection: sqlite3.Connection, trial: str, token: int, reason: str | bool | None, attempts: int
) -> None:
    """Return a dead owner's trial; with a reason its death counts, and may be one too many."""
    if not reason:
        connection.execute(_RELEASE, (0, trial, token))
        return
    (deaths,) = connection.execute("SELECT deaths FROM trials WHERE id = ?", (trial,)).fetchone()
    if deaths + 1 < attempts:
        connection.execute(_RELEASE, (1, trial, token))
        return
    times = f" ({deaths + 1} times)" if deaths else ""
    connection.execute(_BURY, (f"{reason}{times}", time.time(), trial, token))


def digest(trial: str, result: str | None) -> str | None:
    """What a result is checked against when it is read: disks do flip bits."""
    if result is None:
        return None
    return content_address(f"{trial}\0{result}")


def _row(study: str, line: tuple[Any, ...]) -> Row:
    variant, role, position, trial, config, state, reason, result, *rest = line
    same = content_address(config) == trial and digest(trial, result) == rest[4]
    if not same or state not in STATES:
        raise sqlite3.DatabaseError(f"trial {trial} does not match its digest, so it is damaged")
    return Row(
        study=study,
        variant=variant,
        role=role,
        position=position,
        id=trial,
        config=json.loads(config),
        state=state,
        reason=reason,
        result=None if result is None else json.loads(result),
        deaths=rest[0],
        created=rest[1],
        started=rest[2],
        finished=rest[3],
    )


_COUNTS = """
SELECT t.state, count(*) FROM study_trials s JOIN trials t ON t.id = s.trial
WHERE s.study = ? GROUP BY t.state
"""
_ROWS = """
SELECT s.variant, s.role, s.position, t.id, t.config, t.state, t.reason, t.result, t.deaths,
       t.created, t.started, t.finished, t.digest
FROM study_trials s JOIN trials t ON t.id = s.trial
WHERE s.study = ? AND (? IS NULL OR s.role = ?)
ORDER BY s.role DESC, s.position, s.variant
"""
_SAVE_STUDY = """
INSERT INTO studies (name, spec, plan, created) VALUES (?, ?, ?, ?)
ON CONFLICT (name) DO UPDATE SET spec = excluded.spec, plan = excluded.plan
"""
_DROP_SEEDS = """
DELETE FROM study_trials WHERE study = ? AND role = 'compare' AND trial IN (
    SELECT id FROM trials WHERE state = 'pending' AND json_extract(config, '$.seed') >= ?
)
"""
_ADD_TRIAL = "INSERT INTO trials (id, config, created) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
_ADD_LINK = """
INSERT INTO study_trials (study, trial, variant, role, position) VALUES (?, ?, ?, ?, ?)
ON CONFLICT DO NOTHING
"""
_DROP_LINK = """
DELETE FROM study_trials WHERE study = ? AND trial = ? AND variant = ? AND role = ?
"""
_RETRY = """
UPDATE trials SET state = 'pending', deaths = 0, reason = NULL, result = NULL, digest = NULL,
    finished = NULL
WHERE state = 'failed' AND id IN (SELECT trial FROM study_trials WHERE study = ?)
"""
# Few trials run at a time, so this begins with those (CROSS JOIN keeps SQLite to that order) …
_RUNNING = """
SELECT DISTINCT t.id, t.token, t.owner, t.beat
FROM trials t CROSS JOIN study_trials s ON s.study = ? AND s.trial = t.id
WHERE t.state = 'running'
"""
# … while this walks along the study's order until it meets a pending one.
_PENDING = """
SELECT t.id, t.token, t.config FROM study_trials s CROSS JOIN trials t ON t.id = s.trial
WHERE s.study = ? AND t.state = 'pending' AND json_extract(t.config, '$.code') = ?
ORDER BY s.role DESC, s.position LIMIT 1
"""
_TAKE = """
UPDATE trials SET state = 'running', owner = ?, started = ?, token = token + 1 WHERE id = ?
"""
_FINISH = """
UPDATE trials SET state = 'done', owner = NULL, reason = NULL, result = ?, digest = ?,
    finished = ?
WHERE id = ? AND token = ? AND state = 'running'
"""
_FAIL = """
UPDATE trials SET state = 'failed', owner = NULL, reason = ?, result = ?, digest = ?,
    finished = ?
WHERE id = ? AND token = ? AND state = 'running'
"""
_BEAT = "UPDATE trials SET beat = beat + 1 WHERE id = ? AND token = ? AND state = 'running'"
_RELEASE = """
UPDATE trials SET state = 'pending', owner = NULL, started = NULL, deaths = deaths + ?
WHERE id = ? AND token = ? AND state = 'running'
"""
_BURY = """
UPDATE trials SET state = 'failed', owner = NULL, deaths = deaths + 1, reason = ?, finished = ?
WHERE id = ? AND token = ? AND state = 'running'
"""

"""The file under the store: how it is opened, what it holds, and what its errors mean.

SQLite in write-ahead-log mode with synchronous=FULL: a commit that was acknowledged survives the
death of any process and a power cut, and readers never wait for writers. One machine at a time:
the log does not work over a network file system.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from ogive.errors import StoreError

APPLICATION = 0x4F474956  # "OGIV": tells a store from any other SQLite file
VERSION = 1
BUSY_SECONDS = 30.0
_DAMAGED = "the store is damaged; restore it from a copy or move it away"
_HEADER = b"SQLite format 3\0"

TABLES = """
CREATE TABLE studies (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    plan TEXT,
    created REAL NOT NULL
) STRICT;
CREATE TABLE trials (
    id TEXT PRIMARY KEY,
    config TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending'
        CHECK (state IN ('pending', 'running', 'done', 'failed')),
    owner TEXT,
    token INTEGER NOT NULL DEFAULT 0,
    beat INTEGER NOT NULL DEFAULT 0,
    deaths INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    created REAL NOT NULL,
    started REAL,
    finished REAL,
    result TEXT,
    digest TEXT,
    CHECK ((state = 'running') = (owner IS NOT NULL)),
    CHECK (state <> 'done' OR result IS NOT NULL),
    CHECK (state <> 'failed' OR reason IS NOT NULL)
) STRICT;
CREATE INDEX trials_by_state ON trials (state);
CREATE TABLE study_trials (
    study TEXT NOT NULL REFERENCES studies (name),
    trial TEXT NOT NULL REFERENCES trials (id),
    variant TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('tune', 'compare')),
    position INTEGER NOT NULL,
    PRIMARY KEY (study, trial, variant, role)
) STRICT, WITHOUT ROWID;
CREATE INDEX study_trials_in_order ON study_trials (study, role DESC, position);
"""


def connect(path: Path) -> sqlite3.Connection:
    """Open a store for reading and writing; make it where there is none.

    Raises:
        StoreError: it cannot be made or opened, or is no store of this version.
    """
    with explained(path):
        _make_folder(path)
        if path.exists() and path.stat().st_size:
            connect_readonly(path, fresh=True).close()  # recognise it before anything is changed
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            _into_log_mode(connection, path)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA foreign_keys = ON")
            with writing(connection):
                if _stamp(connection) == (0, 0) and _empty(connection):
                    _create(connection)
                _recognise(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def connect_readonly(path: Path, *, fresh: bool = False) -> sqlite3.Connection:
    """Open a store for reading, without creating or changing any file beside it.

    A store at rest (no log) is read as immutable; one that is written to is read through its log.
    Where the log has lost its index (after a crash, or in a copy), which SQLite would make anew,
    a private copy is read.

    Args:
        path: the store's file.
        fresh: whether one that was made a moment ago, with nothing in it yet, will do.

    Raises:
        StoreError: it is missing, unreadable, damaged, or no store of this version.
    """
    with explained(path):
        if not path.exists():
            raise StoreError(f"{path}: there is no store here; run a study first, or name its file")
        if path.is_dir():
            raise StoreError(f"{path} is a folder; a store is a file")
        connection = _open_to_read(path)
        try:
            _recognise(connection, path, fresh)
        except BaseException:
            connection.close()
            raise
        return connection


@contextlib.contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """One write transaction: taken at once, all or nothing."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's and the system's errors into a StoreError that says what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise StoreError(f"{path}: {_explain(error, path)}") from error
    except UnicodeDecodeError as error:
        raise StoreError(f"{path}: {_DAMAGED} ({error})") from error
    except OSError as error:
        raise StoreError(
            f"{path}: {error.strerror or error}; choose another place with --store"
        ) from error


def _explain(error: sqlite3.DatabaseError, path: Path) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _free(path) < 2**20):
        return (
            f"the disk is full ({_free(path) / 2**20:.1f} MB free; a few MB are needed); nothing "
            "that was finished is lost: free some space and run the same command to go on"
        )
    known = {
        sqlite3.SQLITE_NOTADB: "this file is not a store of Ogive; name another file",
        sqlite3.SQLITE_CORRUPT: _DAMAGED,
        sqlite3.SQLITE_READONLY: "the store, or the folder it is in, is read-only; choose another "
        "place with --store",
        sqlite3.SQLITE_CANTOPEN: "the store cannot be opened; its folder may be read-only or full: "
        "choose another place with --store",
        sqlite3.SQLITE_BUSY: f"another process has held the store for {BUSY_SECONDS:.0f} s; end "
        "it, or try again",
        sqlite3.SQLITE_IOERR: "the disk reports an error; a store needs a local disk, not a "
        "network one",
    }
    return f"{known.get(code, 'the store cannot be used')} ({error})"


def _make_folder(path: Path) -> None:
    if path.is_dir():
        raise StoreError(f"{path} is a folder; a store is a file")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise StoreError(f"{path.parent} is not a folder, so no store can be kept in it") from None


def _into_log_mode(connection: sqlite3.Connection, path: Path) -> None:
    """Switch to the write-ahead log; SQLite does not wait for others here, so this does."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or time.monotonic() > until:
                raise
            time.sleep(0.02)
        else:
            if mode != "wal":
                raise StoreError(
                    f"{path}: this file system cannot hold a store (SQLite's write-ahead log does "
                    "not work on it); choose a local disk with --store"
                )
            return


def _create(connection: sqlite3.Connection) -> None:
    for statement in TABLES.split(";\n"):
        if statement.strip():
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {APPLICATION}")
    connection.execute(f"PRAGMA user_version = {VERSION}")


def _stamp(connection: sqlite3.Connection) -> tuple[int, int]:
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    return application, connection.execute("PRAGMA user_version").fetchone()[0]


def _empty(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0


def _recognise(connection: sqlite3.Connection, path: Path, fresh: bool = False) -> None:
    """Refuse a file that is not a store of this version."""
    application, version = _stamp(connection)
    if application == 0 and version == 0 and _empty(connection):
        if fresh:
            return  # made a moment ago, or left by a crash before its first commit
        raise StoreError(f"{path}: nothing has been stored here yet; run a study first")
    application, version = _stamp(connection)  # another process may have made it between the looks
    if application != APPLICATION:
        raise StoreError(
            f"{path} is not a store of Ogive but another SQLite file; name another file"
        )
    if version > VERSION:
        raise StoreError(
            f"{path} was written by a newer Ogive (store version {version}, this one reads up to "
            f"{VERSION}); upgrade ogive, or choose another store with --store"
        )


def _open_to_read(path: Path) -> sqlite3.Connection:
    with path.open("rb") as file:
        if file.read(len(_HEADER)) not in (b"", _HEADER):
            raise StoreError(f"{path}: this file is not a store of Ogive; name another file")
    log, index = (path.with_name(path.name + end) for end in ("-wal", "-shm"))
    if not log.exists() or log.stat().st_size == 0:
        return _open_uri(path, "mode=ro&immutable=1")
    return _open_uri(path, "mode=ro") if index.exists() else _open_copy(path, log)


def _open_uri(path: Path, options: str) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?{options}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)


def _open_copy(path: Path, log: Path) -> sqlite3.Connection:
    """Read a store whose log cannot be used in place: load a copy into memory."""
    memory = sqlite3.connect(":memory:", isolation_level=None)
    with tempfile.TemporaryDirectory(prefix="ogive-") as folder:
        copy = Path(folder) / "store"
        shutil.copyfile(path, copy)
        shutil.copyfile(log, copy.with_name("store-wal"))
        with contextlib.closing(sqlite3.connect(copy)) as disk:
            disk.backup(memory)
    return memory


def _free(path: Path) -> int:
    try:
        return shutil.disk_usage(path.parent).free
    except OSError:
        return 0

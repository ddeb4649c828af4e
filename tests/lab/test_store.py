"""The store: claims that one worker gets, results that stay, and files that are refused."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from lab import fakes
from ogive.errors import StoreError, StudyError, UnknownName
from ogive.lab import Row, Store, grid, process, schema, store
from ogive.lab.store import Trial

EVERYTHING = os.environ.get("OGIVE_TEST_ALL") == "1"
OWNER = process.identity()
RESULT = {"score": 1.5, "curve": [[1, float("nan"), None]]}


@pytest.fixture
def filled(tmp_path):
    """A store with a study of four arms and two seeds: eight trials, path and code."""
    path = tmp_path / "s.sqlite"
    spec = fakes.study(tmp_path, learning_rates=(0.1,), seeds=2).spec()
    plan = fakes.plan(spec)
    with Store(path) as opened:
        opened.begin_study(spec, plan)
        opened.link("fake", plan, grid.wanted(plan, 2, grid.ladders(plan, [])))
        yield opened, plan["code"]


def dead_owner() -> str:
    """The identity of a process that has ended, under a run that lives."""
    code = "from ogive.lab import process; import sys; print(process.identity(int(sys.argv[1])))"
    ask = [sys.executable, "-c", code, str(os.getpid())]
    return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()


def contents(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


# --- trials --------------------------------------------------------------------------------------


def test_a_trial_lives_from_pending_to_done(filled):
    opened, code = filled
    assert opened.counts("fake") == {"pending": 8, "running": 0, "done": 0, "failed": 0, "total": 8}
    claim = opened.claim("fake", OWNER, code)
    assert (claim.config["seed"], claim.config["sites"]) == (0, "")
    assert opened.counts("fake")["running"] == 1
    assert opened.finish(claim, RESULT)
    done = opened.rows("fake")[0]
    assert (done.state, done.variant, done.task, done.seed) == ("done", "baseline", "fake", 0)
    assert (done.learning_rate, done.deaths) == (0.1, 0)
    assert done.result == {"score": 1.5, "curve": [[1, None, None]]}, "NaN is no JSON"
    assert done.created <= done.started <= done.finished


def test_trials_are_claimed_in_order_and_once(filled):
    opened, code = filled
    claims = [opened.claim("fake", OWNER, code) for _ in range(8)]
    assert [c.config["seed"] for c in claims] == [0] * 4 + [1] * 4
    assert len({c.id for c in claims}) == 8
    assert opened.claim("fake", OWNER, code) is None


def test_trials_of_other_sources_are_left_alone(filled):
    opened, _ = filled
    assert opened.claim("fake", OWNER, "another fingerprint") is None


def test_failed_trials_keep_their_reason_and_can_be_retried(filled):
    opened, code = filled
    claim = opened.claim("fake", OWNER, code)
    assert opened.fail(claim, "diverged: at step 3", {"diverged": True})
    failed = opened.rows("fake")[0]
    assert (failed.state, failed.reason) == ("failed", "diverged: at step 3")
    assert failed.result == {"diverged": True}
    assert opened.retry_failed("fake") == 1
    again = opened.claim("fake", OWNER, code)
    assert (again.id, again.token) == (claim.id, claim.token + 1)


def test_adding_trials_again_adds_nothing(filled):
    opened, code = filled
    opened.finish(opened.claim("fake", OWNER, code), RESULT)
    plan = opened.plan("fake")
    trials = grid.wanted(plan, 3, grid.ladders(plan, []))
    assert opened.link("fake", plan, trials) == 4, "the third seed only"
    assert opened.link("fake", plan, trials) == 0
    assert opened.link("fake", plan, []) == 0
    counts = opened.counts("fake")
    assert (counts["pending"], counts["done"], counts["total"]) == (11, 1, 12)


def test_studies_share_trials(filled, tmp_path):
    opened, code = filled
    opened.finish(opened.claim("fake", OWNER, code), RESULT)
    other = fakes.study(tmp_path, name="other", learning_rates=(0.1,), seeds=2).spec()
    plan = opened.plan("fake")
    opened.begin_study(other, plan)
    opened.link("other", plan, grid.wanted(plan, 2, grid.ladders(plan, [])))
    assert opened.counts("other")["done"] == 1
    assert opened.studies() == ["fake", "other"]


def test_a_new_plan_leaves_old_rows_out_and_keeps_them(filled, tmp_path):
    opened, code = filled
    opened.finish(opened.claim("fake", OWNER, code), RESULT)
    spec, old = opened.spec("fake"), opened.plan("fake")
    opened.begin_study(spec, {**old, "code": "newer"})
    assert opened.rows("fake") == []
    opened.begin_study(spec, old)
    opened.link("fake", old, grid.wanted(old, 2, grid.ladders(old, [])))
    assert opened.counts("fake")["done"] == 1, "the old code's result is found again"


def test_another_plan_in_between_is_noticed(filled):
    opened, _ = filled
    old = opened.plan("fake")
    opened.begin_study(opened.spec("fake"), {**old, "code": "newer"})
    with pytest.raises(StudyError, match="was started with other contents while this one ran"):
        opened.link("fake", old, grid.wanted(old, 2, grid.ladders(old, [])))
    assert opened.rows("fake") == []


def test_fewer_seeds_drop_what_nobody_began(filled):
    opened, code = filled
    for _ in range(5):
        opened.finish(opened.claim("fake", OWNER, code), RESULT)
    opened.begin_study({**opened.spec("fake"), "seeds": 1}, opened.plan("fake"))
    assert opened.counts("fake") == {"pending": 0, "running": 0, "done": 5, "failed": 0, "total": 5}


# --- owners --------------------------------------------------------------------------------------


def test_a_dead_workers_trial_comes_back_at_most_three_times(filled, monkeypatch):
    opened, code = filled
    monkeypatch.setattr(store, "GRACE_SECONDS", 0.0)
    owners = [dead_owner() for _ in range(3)]
    tokens = []
    for owner in owners:
        claim = opened.claim("fake", owner, code)
        assert claim.config["seed"] == 0
        assert claim.config["sites"] == ""
        tokens.append(claim.token)
    assert tokens == [1, 2, 3]
    following = opened.claim("fake", OWNER, code)
    assert following.config["sites"] != "", "the fourth claim goes to the next trial"
    first = opened.rows("fake")[0]
    assert (first.state, first.deaths) == ("failed", 3)
    assert first.reason == "its worker died (3 times)"


def test_a_worker_that_died_with_its_run_was_interrupted(filled):
    opened, code = filled
    gone = json.loads(dead_owner())
    gone |= {"boss": gone["pid"], "boss_start": gone["start"]}
    for _ in range(5):
        assert opened.claim("fake", json.dumps(gone), code).config["sites"] == ""
    assert opened.rows("fake")[0].deaths == 0


def test_a_live_owner_keeps_its_trial(filled):
    opened, code = filled
    first = opened.claim("fake", OWNER, code)
    for _ in range(7):
        assert opened.claim("fake", OWNER, code).id != first.id
    assert opened.claim("fake", OWNER, code) is None


def test_a_process_id_that_was_given_out_again_is_not_its_predecessor(filled):
    opened, code = filled
    impostor = {**json.loads(OWNER), "start": "1", "boss_start": "1"}
    first = opened.claim("fake", json.dumps(impostor), code)
    assert opened.claim("fake", OWNER, code).id == first.id


def test_a_live_run_buries_its_own_worker_first(filled, monkeypatch):
    opened, code = filled
    owner = dead_owner()
    lost = opened.claim("fake", owner, code)
    now = [1000.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])
    assert opened.claim("fake", OWNER, code).id != lost.id
    now[0] += store.GRACE_SECONDS
    assert opened.claim("fake", OWNER, code).id == lost.id
    assert opened.bury("fake", json.loads(owner)["pid"], "segfault") == [], "it came too late"
    assert opened.bury("fake", os.getpid(), None) != []
    assert {row.state for row in opened.rows("fake")} == {"pending"}
    assert sum(row.deaths for row in opened.rows("fake")) == 1


def test_a_zombie_cannot_commit(filled, monkeypatch):
    opened, code = filled
    monkeypatch.setattr(store, "GRACE_SECONDS", 0.0)
    lost = opened.claim("fake", dead_owner(), code)
    new = opened.claim("fake", OWNER, code)
    assert new.id == lost.id
    assert not opened.finish(lost, {"score": -1.0})
    assert not opened.fail(lost, "too late")
    assert opened.rows("fake")[0].state == "running"
    assert opened.finish(new, RESULT)
    assert not opened.finish(new, {"score": -1.0}), "nor twice"
    assert opened.rows("fake")[0].result["score"] == 1.5


def test_without_the_token_a_zombie_would_commit(filled, monkeypatch):
    """The wrong twin of the test above: it is the token that refuses."""
    opened, code = filled
    monkeypatch.setattr(store, "GRACE_SECONDS", 0.0)
    monkeypatch.setattr(store, "_FINISH", store._FINISH.replace("token = ?", "? >= 0"))
    lost = opened.claim("fake", dead_owner(), code)
    opened.claim("fake", OWNER, code)
    assert opened.finish(lost, {"score": -1.0})


@pytest.mark.parametrize("where", ["machine", "space"])
def test_unseen_owners_keep_their_trial_while_their_heart_beats(filled, monkeypatch, where):
    opened, code = filled
    far = json.dumps({**json.loads(OWNER), where: "elsewhere"})
    first = opened.claim("fake", far, code)
    now = [1000.0]
    monkeypatch.setattr(store.time, "monotonic", lambda: now[0])

    def others(seconds):
        now[0] += seconds
        claim = opened.claim("fake", OWNER, code)
        return claim.id

    assert others(0) != first.id
    assert others(store.LEASE_SECONDS * 0.9) != first.id
    opened.beat(first)
    assert others(store.LEASE_SECONDS * 0.9) != first.id, "it has beaten in between"
    assert others(store.LEASE_SECONDS) == first.id


def test_another_boot_of_the_machine_is_dead():
    assert process.alive(OWNER) is True
    assert process.alive(json.dumps({**json.loads(OWNER), "boot": "before"})) is False
    assert process.alive(None) is False
    assert process.alive(dead_owner()) is False
    assert process.supervisor_alive(dead_owner()) is True


def test_a_process_without_proc_is_asked_of_ps(monkeypatch):
    if shutil.which("ps") is None:
        pytest.skip("there is no ps on this machine")
    monkeypatch.setattr(process, "PROC", Path("/nonexistent"))
    assert process.started(os.getpid())
    assert process.started(os.getpid()) == process.started(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert process.started(child.pid) == ""


def test_an_uncollected_zombie_is_dead():
    child = subprocess.Popen([sys.executable, "-c", ""])
    until = time.monotonic() + 20
    while process.started(child.pid) != "" and time.monotonic() < until:
        time.sleep(0.01)
    assert process.started(child.pid) == ""
    child.wait()


# --- two at once ---------------------------------------------------------------------------------


def test_claims_from_many_connections_never_meet(filled, tmp_path):
    opened, code = filled
    plan = opened.plan("fake")
    opened.link("fake", plan, grid.wanted(plan, 50, grid.ladders(plan, [])))
    claimed, errors = [], []

    def grab():
        try:
            with Store(opened.path) as mine:
                while (claim := mine.claim("fake", OWNER, code)) is not None:
                    claimed.append(claim.id)
                    mine.finish(claim, RESULT)
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=grab) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(claimed) == len(set(claimed)) == 200
    assert opened.counts("fake")["done"] == 200


def test_many_may_make_the_same_new_store(tmp_path):
    errors = []

    def make():
        try:
            Store(tmp_path / "new" / "s.sqlite").close()
        except StoreError as error:
            errors.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    with Store.open_readonly(tmp_path / "new" / "s.sqlite") as made:
        assert made.studies() == []


# --- reading only --------------------------------------------------------------------------------


def test_reading_leaves_no_trace(filled):
    opened, code = filled
    opened.finish(opened.claim("fake", OWNER, code), RESULT)
    folder = opened.path.parent
    opened.close()
    before = contents(folder)
    with Store.open_readonly(opened.path) as reader:
        assert reader.counts("fake")["done"] == 1
        assert reader.spec("fake")["name"] == reader.studies()[0] == "fake"
        assert reader.created("fake") <= time.time()
        for change in (
            lambda: reader.claim("fake", OWNER, code),
            lambda: reader.retry_failed("fake"),
            lambda: reader.link("fake", {}, [Trial({}, "a", "tune", 0)]),
        ):
            with pytest.raises(StoreError, match="for reading only"):
                change()
    assert contents(folder) == before
    assert list(before) == [opened.path.name]


def test_reading_sees_what_a_writer_has_committed(filled):
    opened, code = filled
    reader = Store.open_readonly(opened.path)
    for done in range(1, 4):
        opened.finish(opened.claim("fake", OWNER, code), RESULT)
        assert reader.counts("fake")["done"] == done


def test_reading_after_a_crash_changes_no_file(filled, tmp_path):
    opened, code = filled
    opened.finish(opened.claim("fake", OWNER, code), RESULT)
    crashed = tmp_path / "crashed"
    crashed.mkdir()
    for end in ("", "-wal"):  # the log's index is lost, as after a power cut or a copy
        shutil.copy(f"{opened.path}{end}", crashed / f"s.sqlite{end}")
    before = contents(crashed)
    with Store.open_readonly(crashed / "s.sqlite") as reader:
        assert reader.counts("fake")["done"] == 1
    assert contents(crashed) == before


@pytest.mark.parametrize("name", ["a b?c#d%20e.sqlite", "ünï🙂.sqlite", "'quoted\".sqlite"])
def test_any_file_name_will_do(tmp_path, name):
    with Store(tmp_path / name):
        pass
    with Store.open_readonly(tmp_path / name) as reader:
        assert reader.studies() == []
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_an_unknown_study_lists_the_known(filled):
    opened, _ = filled
    for ask in (opened.spec, opened.plan, opened.created):
        with pytest.raises(UnknownName, match="did you mean 'fake'"):
            ask("fakee")
    assert opened.rows("fakee") == []


# --- files that are refused ----------------------------------------------------------------------


def refused(path, says):
    """Both ways of opening refuse the file, name it, and leave it as it was."""
    before = path.read_bytes() if path.is_file() else None
    for opening in (Store, Store.open_readonly):
        with pytest.raises(StoreError, match=says) as raised:
            opening(path)
        assert str(path) in str(raised.value)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_a_newer_store(filled):
    opened, _ = filled
    opened.close()
    with contextlib.closing(sqlite3.connect(opened.path)) as raw:
        raw.execute(f"PRAGMA user_version = {schema.VERSION + 1}")
    refused(opened.path, "written by a newer Ogive .* upgrade ogive")


def test_not_a_store(tmp_path):
    text = tmp_path / "text"
    text.write_text("this is not a database, but it is long enough to have a header\n" * 100)
    refused(text, "not a store of Ogive; name another file")
    short = tmp_path / "short"
    short.write_text("x")
    refused(short, "not a store of Ogive")
    other = tmp_path / "other"
    with contextlib.closing(sqlite3.connect(other)) as raw:
        raw.execute("CREATE TABLE cookies (name)")
        raw.commit()
    refused(other, "another SQLite file")
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(folder, "is a folder; a store is a file")


def test_no_store_to_read(tmp_path):
    with pytest.raises(StoreError, match="no store here; run a study first"):
        Store.open_readonly(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "empty").touch()
    with pytest.raises(StoreError, match="nothing has been stored here yet"):
        Store.open_readonly(tmp_path / "empty")
    Store(tmp_path / "empty").close()


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is not a folder"):
        Store(tmp_path / "file" / "s.sqlite")


def test_a_damaged_store_never_gives_wrong_rows(filled):
    """Cut it, or overwrite a page: rows that come are the right ones, or a StoreError says so."""
    opened, code = filled
    plan = opened.plan("fake")
    opened.link("fake", plan, grid.wanted(plan, 30, grid.ladders(plan, [])))
    while (claim := opened.claim("fake", OWNER, code)) is not None:
        opened.finish(claim, {"score": 1.0, "id": claim.id})
    good = opened.rows("fake")
    opened.close()
    whole = opened.path.read_bytes()
    refused = [damaged(opened.path, bad, good) for bad in spoiled(whole)]
    assert sum(refused) > len(refused) / 4


def spoiled(whole: bytes) -> list[bytes]:
    """The file cut short at each page, each page overwritten, and single bits flipped."""
    pages = range(0, len(whole), 4096)
    bits = np.random.default_rng(0).integers(0, 8 * len(whole), 400 if EVERYTHING else 100)
    flipped = [bytearray(whole) for _ in bits]
    for copy, bit in zip(flipped, bits, strict=True):
        copy[bit // 8] ^= 1 << (bit % 8)
    over = [whole[:at] + b"\xa5" * 4096 + whole[at + 4096 :] for at in pages]
    return [*(whole[:at] for at in pages), *over, *map(bytes, flipped)]


def damaged(path: Path, bad: bytes, good: list[Row]) -> bool:
    """Whether the damage was noticed; if not, it must have done no harm to any result."""
    path.write_bytes(bad)
    true = {row.id: (row.config, row.result) for row in good}
    try:
        with Store.open_readonly(path) as reader:
            found = reader.rows("fake")
    except StoreError as error:
        assert str(path) in str(error)  # noqa: PT017
        return True
    assert all(true[row.id] == (row.config, row.result) for row in found)
    return False


def test_every_error_of_the_disk_says_what_to_do(tmp_path):
    path = tmp_path / "s.sqlite"
    for code, says in (
        (sqlite3.SQLITE_FULL, "disk is full .* nothing that was finished is lost"),
        (sqlite3.SQLITE_READONLY, "read-only; choose another place with --store"),
        (sqlite3.SQLITE_CANTOPEN, "cannot be opened"),
        (sqlite3.SQLITE_BUSY, "another process has held the store"),
        (sqlite3.SQLITE_IOERR, "needs a local disk"),
        (sqlite3.SQLITE_CORRUPT, "damaged"),
    ):
        error = sqlite3.OperationalError("as sqlite puts it")
        error.sqlite_errorcode = code | 256  # extended codes keep the plain one in the low byte
        with pytest.raises(StoreError, match=says) as raised, schema.explained(path):
            raise error
        assert str(path) in str(raised.value)
    with pytest.raises(StoreError, match="No space left"), schema.explained(path):
        raise OSError(28, "No space left on device")

"""Nothing that was finished is lost or done twice, whatever is killed, filled up or locked away."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from lab import fakes
from lab.test_run import run
from ogive.errors import StoreError
from ogive.lab import Row
from ogive.lab.run import DEATHS_IN_A_ROW

EVERYTHING = os.environ.get("OGIVE_TEST_ALL") == "1"
KILLS = 100 if EVERYTHING else 16  # of workers, and as many of the run itself
SCRIPT = Path(__file__).with_name("fake_run.py")
TRIALS = 28
QUIET = {"train": {"trial": 0.05}, "attempts": 10_000}

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


def start(folder: Path, **asked) -> subprocess.Popen:
    """The fake study, run by a process of its own, in a session of its own."""
    command = [sys.executable, str(SCRIPT), str(folder), json.dumps({**QUIET, **asked})]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def ended_well(process: subprocess.Popen) -> dict:
    out, err = process.communicate(timeout=120)
    assert (process.returncode, err) == (0, "")
    return json.loads(out)


def children(pid: int) -> list[int]:
    """Process ids whose parent this is."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def until(condition, seconds=30.0):
    """Wait for a condition; its last value."""
    end = time.monotonic() + seconds
    while not (value := condition()) and time.monotonic() < end:
        time.sleep(0.02)
    return value


def gone(pids) -> bool:
    """Whether none of the processes is left (a zombie is gone: nobody collects an orphan here)."""
    return all(fakes.ended(pid) for pid in pids)


def state(folder: Path) -> dict[str, Row]:
    """The store's rows by address, read while others write; empty before there is a study."""
    try:
        return {row.id: row for row in fakes.rows(folder / "s.sqlite")}
    except StoreError as error:
        assert "no store here" in str(error) or "nothing has been stored" in str(error)  # noqa: PT017
        return {}


def done(folder: Path) -> set[str]:
    """What the store says is done, as the log writes it."""
    return {fakes.written(row.config) for row in state(folder).values() if row.state == "done"}


def same_as_undisturbed(folder: Path, undisturbed: Path) -> bool:
    """Whether every trial gave what it gives when nobody is killed."""

    def results(place):
        return {fakes.written(row.config): row.result for row in state(place).values()}

    return results(folder) == results(undisturbed)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    ended_well(start(folder))
    assert len(state(folder)) == TRIALS
    return folder


def begun(folder: Path) -> Counter:
    return Counter(fakes.executed(folder, "begin"))


class Watch:
    """A reader that looks all the time: what is done stays done, and is never begun again."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.begun_when_done = folder, {}

    def look(self) -> int:
        finished = done(self.folder)
        assert set(self.begun_when_done) <= finished, "a finished trial was lost"
        counts = begun(self.folder)
        for trial in finished:
            assert counts[trial] == self.begun_when_done.setdefault(trial, counts[trial]), trial
        return len(finished)


def test_workers_killed_at_random(tmp_path, undisturbed):
    """SIGKILL to a random worker at a random moment; the run goes on to the end.

    On a busy machine workers may be killed while they start, again and again: that many in a row
    would, rightly, end the run.
    """
    chance, watch, kills, ended, in_a_row = random.Random(1), Watch(tmp_path), 0, 0, 0
    seeds = 4 + KILLS
    process = start(tmp_path, study={"seeds": seeds})
    while process.poll() is None:
        time.sleep(chance.uniform(0.0, 0.3))
        before, ended = ended, watch.look()
        in_a_row = 0 if ended > before else in_a_row
        victims = children(process.pid) if ended else []
        if victims and kills < KILLS and in_a_row < DEATHS_IN_A_ROW - 2:
            os.kill(chance.choice(victims), signal.SIGKILL)
            kills, in_a_row = kills + 1, in_a_row + 1
    ended_well(process)
    assert watch.look() == 4 * (3 + seeds)
    assert kills >= KILLS * 3 // 4
    assert {row.state for row in state(tmp_path).values()} == {"done"}
    run(tmp_path, fakes.study(tmp_path, train={"log": str(tmp_path / "log"), "trial": 0.05}))
    watch.look()


def test_the_run_killed_at_random(tmp_path, undisturbed):
    """SIGKILL to the run itself; its workers leave, and the next run goes on."""
    chance, watch, kills = random.Random(2), Watch(tmp_path), 0
    while kills < KILLS:
        process = start(tmp_path, study={"seeds": 4 + KILLS // 2})
        time.sleep(chance.uniform(0.3, 1.5))
        workers = children(process.pid)
        process.kill()
        process.communicate()
        kills += 1
        assert until(lambda w=workers: gone(w), 5), "workers outlive their run"
        watch.look()
    ended_well(start(tmp_path, study={"seeds": 4 + KILLS // 2}))
    assert watch.look() == 4 * (3 + 4 + KILLS // 2)
    assert sum(row.deaths for row in state(tmp_path).values()) == 0, "interrupted, not crashed"


def test_disturbed_or_not_the_numbers_are_the_same(tmp_path, undisturbed):
    chance = random.Random(3)
    for _ in range(3):
        process = start(tmp_path)
        until(lambda p=process: children(p.pid))
        time.sleep(chance.uniform(0.2, 0.6))
        process.kill()
        process.communicate()
    ended_well(start(tmp_path))
    assert same_as_undisturbed(tmp_path, undisturbed)


@pytest.mark.parametrize("runners", [2, 4] if EVERYTHING else [3])
def test_several_runs_at_once_share_the_work(tmp_path, undisturbed, runners):
    processes = [start(tmp_path, workers=2) for _ in range(runners)]
    for process in processes:
        ended_well(process)
    assert begun(tmp_path) == Counter(dict.fromkeys(begun(undisturbed), 1)), "each exactly once"
    assert same_as_undisturbed(tmp_path, undisturbed)


def test_one_of_two_runs_is_killed(tmp_path, undisturbed):
    first, second = start(tmp_path), start(tmp_path)
    assert until(lambda: len(done(tmp_path)) > 3)
    first.kill()
    first.communicate()
    ended_well(second)
    assert same_as_undisturbed(tmp_path, undisturbed)
    assert max(begun(tmp_path).values()) <= 2
    assert sum(begun(tmp_path).values()) <= TRIALS + 2, "at most what the dead run's workers held"


@pytest.mark.parametrize(
    ("sent", "code", "twice"),
    [
        (signal.SIGINT, 130, False),
        (signal.SIGINT, 130, True),
        (signal.SIGTERM, 143, False),
        (signal.SIGHUP, 129, False),
    ],
)
def test_a_run_that_is_asked_to_end(tmp_path, sent, code, twice):
    """Within 2 s, without a word, with nothing running; the next start goes on."""
    slower = {"trial": 0.2}
    process = start(tmp_path, train=slower)
    assert until(lambda: begun(tmp_path).total() > 2)
    workers = children(process.pid)
    asked = time.monotonic()
    os.killpg(process.pid, sent)  # as a terminal does: to the whole foreground group
    if twice:
        os.killpg(process.pid, sent)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - asked < 2.0
    assert gone(workers)
    if not twice:
        assert (process.returncode, out, err) == (code, "", "")
        assert {row.state for row in state(tmp_path).values()} <= {"done", "pending"}
    assert sum(row.deaths for row in state(tmp_path).values()) == 0
    before = len(done(tmp_path))
    assert ended_well(start(tmp_path, train=slower))["executed"] == TRIALS - before
    assert max(begun(tmp_path).values()) <= 2


def test_ended_while_planning(tmp_path):
    process = start(tmp_path, study={"question": "slow to plan"})
    assert until(lambda: children(process.pid))
    planner = children(process.pid)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (130, "", "")
    assert gone(planner)


def test_a_stopped_worker_wakes_up_to_find_its_trial_done(tmp_path, undisturbed):
    """SIGSTOP workers, kill their run, let another do the work, SIGCONT: nothing changes."""
    process = start(tmp_path)
    assert until(lambda: len(done(tmp_path)) > 2)
    workers = children(process.pid)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    process.kill()
    process.communicate()
    try:
        ended_well(start(tmp_path))
        before = state(tmp_path)
    finally:
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):  # Linux hangs up on stopped orphans
                os.kill(pid, signal.SIGCONT)
    assert until(lambda: gone(workers), 5)
    assert state(tmp_path) == before
    assert same_as_undisturbed(tmp_path, undisturbed)


# --- disks ---------------------------------------------------------------------------------------


def can_mount() -> bool:
    probe = ["unshare", "-m", "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
    try:
        return subprocess.run(probe, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


needs_mounts = pytest.mark.skipif(not can_mount(), reason="only root may mount a small disk")


def mounted(mount: str, folder: Path, body: str) -> subprocess.CompletedProcess:
    """Run Python where `mount` was done for it alone; it finds `folder` and the fakes."""
    code = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(SCRIPT.parents[1])!r})
folder = Path({str(folder)!r})
from lab import fakes
from lab.test_run import run
from ogive.errors import StoreError
from ogive.lab import Store
{body}
"""
    script = folder.parent / "mounted.py"
    script.write_text(code)
    inside = f"{mount} && exec {sys.executable} {script}"
    return subprocess.run(
        ["unshare", "-m", "sh", "-c", inside], capture_output=True, text=True, check=False
    )


@needs_mounts
@pytest.mark.parametrize("free_kb", [0, 30, 150, 300, 600, 1000] if EVERYTHING else [30, 300, 700])
def test_a_full_disk(tmp_path, free_kb):
    """It says so and names the file; what was finished is there; with space it goes on."""
    folder = tmp_path / "disk"
    folder.mkdir()
    body = f"""
log = Path({str(tmp_path)!r}) / "log"
study = fakes.study(folder, train={{"log": str(log), "bulk": 40_000}})
(folder / "ballast").write_bytes(bytes(4 * 2**20 - {free_kb} * 1024 - 8192))
try:
    run(folder, study)
except StoreError as error:
    print(error)
else:
    print("it fitted")
store = folder / "s.sqlite"
try:
    before = [row for row in fakes.rows(store) if row.state == "done"]
except StoreError as error:
    assert "store here" in str(error) or "nothing has been stored" in str(error), error
    before = []
(folder / "ballast").unlink()
outcome = run(folder, study)
assert outcome.failed == 0, outcome.rows
after = {{row.id: row for row in outcome.rows}}
assert len(after) == {TRIALS}
assert all(after[row.id] == row for row in before)
print(len(before))
"""
    answer = mounted(f"mount -t tmpfs -o size=4m tmpfs {folder}", folder, body)
    assert answer.returncode == 0, answer.stderr
    error, finished = answer.stdout.splitlines()
    assert f"{folder}/s.sqlite: the disk is full" in error
    assert "free some space and run the same command" in error
    assert 0 <= int(finished) < TRIALS
    assert int(finished) > 0 or free_kb < 300


@needs_mounts
def test_a_folder_that_is_read_only(tmp_path):
    """A store at rest and one left by a crash can be read there, and neither can be written."""
    folder = tmp_path / "locked"
    folder.mkdir()
    process = start(folder)
    assert until(lambda: len(done(folder)) > 3)
    process.kill()
    process.communicate()
    assert until(lambda: gone(children(process.pid)), 5)
    crashed = folder / "crashed.sqlite"
    for end in ("", "-wal"):
        shutil.copy(f"{folder / 's.sqlite'}{end}", f"{crashed}{end}")
    assert Path(f"{crashed}-wal").stat().st_size > 0
    ended_well(start(folder))
    body = f"""
assert len([row for row in fakes.rows(folder / "s.sqlite") if row.state == "done"]) == {TRIALS}
assert len([row for row in fakes.rows(folder / "crashed.sqlite") if row.state == "done"]) > 3
for name in ("s.sqlite", "new.sqlite", "sub/new.sqlite"):
    try:
        Store(folder / name)
    except StoreError as error:
        print(error)
    else:
        raise AssertionError(name)
"""
    bind = f"mount --bind {folder} {folder} && mount -o remount,ro,bind {folder}"
    answer = mounted(bind, folder, body)
    assert answer.returncode == 0, answer.stderr
    for name, line in zip(("s", "new", "sub/new"), answer.stdout.splitlines(), strict=True):
        assert line.startswith(f"{folder}/{name}.sqlite: ")
        assert "read-only" in line.lower()
        assert "choose another place with --store" in line

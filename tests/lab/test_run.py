"""A run does each trial once, goes on where it stood, and says what went wrong."""

from __future__ import annotations

import math
import threading
from collections import Counter

import pytest

from lab import fakes
from ogive.errors import OgiveError, StudyError
from ogive.lab import Progress, Store, Study, run_study
from ogive.lab.validate import FIRST_TUNING_SEED

ARMS = ("baseline", "query=gelu", "key=gelu", "value=gelu")


def run(folder, study: Study | None = None, **options):
    """Run a fake study in a folder."""
    options = {"trainer": fakes.TRAINER, "planner": fakes.PLANNER, **options}
    return run_study(study or fakes.study(folder), store_path=folder / "s.sqlite", **options)


def test_every_trial_runs_once_and_is_judged(tmp_path):
    reports: list[Progress] = []
    outcome = run(tmp_path, on_progress=reports.append)
    done = Counter(fakes.executed(tmp_path))
    assert set(done.values()) == {1}
    assert len(done) == outcome.executed == len(outcome.rows) == 4 * (2 + 1) + 4 * 4
    assert {row.state for row in outcome.rows} == {"done"}
    assert [one.variant for one in outcome.comparisons] == ["a", "b", "c"]
    assert {one.n for one in outcome.comparisons} == {4}
    assert reports[0].phase == "planning"
    assert (reports[-1].phase, reports[-1].done, reports[-1].total) == ("done", 28, 28)
    assert [p.done for p in reports] == sorted(p.done for p in reports)
    assert reports[-1].comparisons == outcome.comparisons


def test_each_arm_is_compared_at_its_own_best_rate(tmp_path):
    rows = run(tmp_path).rows
    rates = {(row.role, row.variant, row.learning_rate) for row in rows if row.role == "compare"}
    assert {(variant, rate) for _, variant, rate in rates} == {
        ("baseline", 0.05),  # 0.1 was best and stood at the end, so the ladder grew downwards
        ("a", 0.05),
        ("b", 0.4),
        ("c", 0.05),
    }
    tuned = {row.seed for row in rows if row.role == "tune"}
    compared = {row.seed for row in rows if row.role == "compare"}
    assert tuned == {FIRST_TUNING_SEED}
    assert compared == {0, 1, 2, 3}


def test_running_again_runs_nothing(tmp_path):
    first = run(tmp_path)
    again = run(tmp_path)
    assert again.executed == 0
    assert again.rows == first.rows
    assert len(fakes.executed(tmp_path)) == first.executed


def test_more_seeds_add_what_is_missing(tmp_path):
    run(tmp_path, seeds=2)
    before = len(fakes.executed(tmp_path))
    more = run(tmp_path, seeds=5)
    assert more.executed == len(fakes.executed(tmp_path)) - before == 3 * 4
    assert {one.n for one in more.comparisons} == {5}
    fewer = run(tmp_path, seeds=3)
    assert (fewer.executed, fewer.comparisons[0].n) == (0, 5), "what was paid for is kept"


def test_changed_data_or_settings_are_new_trials(tmp_path):
    first = run(tmp_path)
    longer = fakes.study(tmp_path)
    longer = longer.replace(train={**longer.train, "steps": 2})
    second = run(tmp_path, longer)
    assert second.executed == first.executed
    assert not {row.id for row in first.rows} & {row.id for row in second.rows}
    assert run(tmp_path).executed == 0, "and the first study's are still there"


def test_a_new_margin_judges_the_same_trials_anew(tmp_path):
    run(tmp_path)
    wide = run(tmp_path, fakes.study(tmp_path, margin=10.0))
    assert wide.executed == 0
    assert {one.verdict for one in wide.comparisons} == {"equivalent"}


def test_partial_runs_hold_complete_pairs(tmp_path):
    seen: list[Progress] = []
    study = fakes.study(tmp_path, learning_rates=(0.1,), seeds=6)
    study = study.replace(train={**study.train, "trial": 0.1})
    run(tmp_path, study, on_progress=seen.append)
    order = [int(line.split()[2]) for line in fakes.executed(tmp_path)]
    assert all(abs(seed - at // 4) <= 1 for at, seed in enumerate(order)), "seed by seed"
    half = [p for p in seen if 0 < p.done < p.total]
    assert any(one.n >= 2 for p in half for one in p.comparisons)
    assert all(one.variant in "abc" for p in seen for one in p.comparisons)
    assert any(p.eta is not None and 0 < p.eta < 30 for p in half)


@pytest.mark.parametrize(
    ("does", "says"),
    [
        ("raise", "ValueError: the trial's own mistake"),
        ("diverge", "diverged: loss became nan at step 7"),
        ("nan", "diverged: its score is nan"),
        ("segfault", "its worker process was ended by SIGSEGV (3 times)"),
        ("killed", "its worker process was ended by SIGKILL (killed from outside; out of memory?)"),
        ("exit", "its worker process left with code 7: last words of a worker (3 times)"),
    ],
)
def test_a_bad_arm_fails_with_its_reason_and_the_others_live(tmp_path, does, says):
    study = fakes.study(tmp_path, learning_rates=(0.1,), seeds=2)
    study = study.replace(train={**study.train, "does": does, "sites": "key=gelu"})
    outcome = run(tmp_path, study)
    failed = [row for row in outcome.rows if row.state == "failed"]
    assert [row.variant for row in failed] == ["b", "b"]
    assert all(row.reason.startswith(says) for row in failed), failed
    assert outcome.failed == 2
    assert Counter(row.state for row in outcome.rows)["done"] == 6
    begun = Counter(fakes.executed(tmp_path, "begin"))
    deaths = 3 if says.startswith("its worker") else 1
    assert {begun[f"key=gelu 0.1 {seed}"] for seed in (0, 1)} == {deaths}
    assert {one.n for one in outcome.comparisons} == {0, 2}
    assert run(tmp_path, study).executed == 0, "a failure is an outcome, not a job to do again"


def test_a_worker_that_dies_once_costs_nothing_but_time(tmp_path):
    study = fakes.study(tmp_path, learning_rates=(0.1,), seeds=2)
    once = {**study.train, "does": "segfault", "sites": "key=gelu", "how_often": 1}
    outcome = run(tmp_path, study.replace(train=once))
    assert outcome.failed == 0
    assert sum(row.deaths for row in outcome.rows) == 1


def test_an_arm_that_never_trains_is_left_without_comparisons(tmp_path):
    study = fakes.study(tmp_path)
    study = study.replace(train={**study.train, "does": "diverge", "sites": "key=gelu"})
    outcome = run(tmp_path, study)
    states = Counter((row.role, row.state) for row in outcome.rows if row.variant == "b")
    assert states == {("tune", "failed"): 2}
    b = outcome.comparisons[1]
    assert (b.n, b.untrained, b.verdict) == (0, True, "undecided")
    assert {one.n for one in outcome.comparisons} == {0, 4}


def test_failed_trials_run_again_on_request(tmp_path):
    study = fakes.study(tmp_path, learning_rates=(0.1,), seeds=2)
    twice = {**study.train, "does": "raise", "sites": "key=gelu", "how_often": 2}
    study = study.replace(train=twice)
    assert run(tmp_path, study).failed == 2
    again = run(tmp_path, study, retry_failed=True)
    assert (again.executed, again.failed) == (2, 0)


def test_a_trial_that_hangs_is_ended(tmp_path):
    study = fakes.study(tmp_path, learning_rates=(0.1,), seeds=1)
    study = study.replace(train={**study.train, "does": "hang", "sites": "key=gelu"})
    outcome = run(tmp_path, study, trial_timeout=0.5)
    failed = [row for row in outcome.rows if row.state == "failed"]
    assert [row.reason for row in failed] == ["it ran longer than the 0.5 s allowed"]
    assert len(fakes.executed(tmp_path)) == 3


def test_what_a_planner_raises_comes_through(tmp_path):
    with pytest.raises(StudyError, match=r"'nothing' is no sites text"):
        run(tmp_path, planner="lab.fakes:refuse")
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        run(tmp_path, planner="lab.fakes:divide")
    with pytest.raises(StudyError, match="planning study 'fake' failed: .* SIGKILL"):
        run(tmp_path, planner="lab.fakes:die")
    with Store.open_readonly(tmp_path / "s.sqlite") as store:
        assert store.studies() == []


def test_workers_that_cannot_start_end_the_run(tmp_path):
    with pytest.raises(RuntimeError, match="No module named 'lab.nothing'"):
        run(tmp_path, trainer="lab.nothing:train")
    with pytest.raises(StudyError, match="10 workers in a row died .* code 9: cannot even start"):
        run(tmp_path, trainer="lab.broken:train")
    assert run(tmp_path).executed == 28


def test_sources_that_changed_in_between_are_noticed(tmp_path):
    with pytest.raises(StudyError, match="the sources changed after study 'fake' was planned"):
        run(tmp_path, planner="lab.fakes:plan_of_other_sources")


def test_two_studies_of_one_name_do_not_mix(tmp_path):
    slow = fakes.study(tmp_path)
    slow = slow.replace(train={**slow.train, "trial": 0.2})
    errors: list[OgiveError] = []

    def first():
        try:
            run(tmp_path, slow, on_progress=lambda p: p.done and begun.set())
        except StudyError as error:
            errors.append(error)

    begun = threading.Event()
    thread = threading.Thread(target=first)
    thread.start()
    assert begun.wait(30)
    assert run(tmp_path).executed == 28
    thread.join()
    assert "was started with other contents while this one ran" in str(errors[0])


def test_plugins_are_loaded_by_planner_and_workers(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text("from lab import fakes\nfakes.BONUS = 5.0\n")
    study = fakes.study(tmp_path, plugins=(str(plugin),), learning_rates=(0.1,), seeds=2)
    outcome = run(tmp_path, study, planner="lab.fakes:plan_with_plugins")
    assert all(row.result["score"] > 4 for row in outcome.rows)


@pytest.mark.parametrize("workers", [0, -1, 1.5, True, "2", 10_000])
def test_a_number_of_workers_that_does_not_fit(tmp_path, workers):
    with pytest.raises(StudyError, match="whole number from 1 to 1024"):
        run(tmp_path, workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_children_compute_with_one_thread(tmp_path):
    outcome = run(tmp_path, trainer="lab.fakes:train_and_tell")
    assert {row.result["threads"] for row in outcome.rows} == {"1"}


def test_results_are_json_all_the_way(tmp_path):
    rows = run(tmp_path).rows
    assert all(math.isfinite(row.result["score"]) for row in rows)
    assert rows[0].result["curve"][1][1] is None

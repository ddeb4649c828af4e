"""A small study through the command line: run, run again, stop in the middle, go on, read."""

from __future__ import annotations

import json
from signal import SIGINT, SIGTERM

from commandline import (
    TRIALS,
    begin,
    count_done,
    end_when,
    ogive,
    trials,
    write_miniature,
)


def scores(store) -> dict[str, float]:
    return {trial: json.loads(line[-1])["score"] for trial, line in trials(store).items()}


def store_of(folder):
    return folder / "ogive-runs" / "miniature.sqlite"


def test_it_runs(finished):
    folder, printed = finished
    assert count_done(store_of(folder)) == TRIALS
    for words in ("Does it run?", "Ctrl-C stops", f"{TRIALS} of {TRIALS} done", "Answer: "):
        assert words in printed
    assert printed.rstrip().endswith("Report: ogive-runs/miniature.html")
    assert printed.count("on text: ") == 2  # one sentence for each variant


def test_plain_output_has_no_control_characters(finished):
    _, printed = finished
    assert [c for c in printed if ord(c) < 32 and c != "\n"] == []


def test_running_again_does_nothing(finished):
    folder, printed = finished
    before = trials(store_of(folder))
    ran = ogive("study", "miniature.py", folder=folder)
    assert ran.returncode == 0
    assert f"All {TRIALS} trials were already there" in ran.stdout
    assert trials(store_of(folder)) == before
    head = "Does it run?\n\n"
    assert ran.stdout.rpartition(head)[2] == printed.rpartition(head)[2]


def test_more_seeds_add_only_what_is_missing(finished, tmp_path):
    folder, _ = finished
    store = tmp_path / "more.sqlite"
    store.write_bytes(store_of(folder).read_bytes())
    before = trials(store)
    ran = ogive("study", "miniature.py", "--seeds", "3", "--store", str(store), folder=folder)
    after = trials(store)
    assert "3 trials run" in ran.stdout
    assert f"{TRIALS} trials were already there" in ran.stdout
    assert {trial: after[trial] for trial in before} == before
    assert len(after) == TRIALS + 3


def test_stopped_in_the_middle_it_goes_on_to_the_same_scores(finished, tmp_path):
    write_miniature(tmp_path)
    store = store_of(tmp_path)
    running = begin("study", "miniature.py", folder=tmp_path)
    code, out, err, seconds = end_when(running, store, 2, SIGINT)
    assert code == 130
    assert "Traceback" not in out + err
    assert "python -m ogive study miniature.py" in out.strip().splitlines()[-1]
    assert seconds < 10  # it waits for no trial
    assert 2 <= count_done(store) < TRIALS

    running = begin("study", "miniature.py", folder=tmp_path)
    code, out, err, _ = end_when(running, store, 5, SIGTERM)
    assert (code, "Traceback" in out + err) == (143, False)

    ran = ogive("study", "miniature.py", folder=tmp_path)
    assert ran.returncode == 0
    assert "were already there" in ran.stdout
    assert scores(store) == scores(store_of(finished[0]))  # to the last bit


def test_status(finished):
    folder, _ = finished
    ran = ogive("status", folder=folder)
    assert ran.returncode == 0
    assert "miniature" in ran.stdout
    (one,) = json.loads(ogive("status", "--json", folder=folder).stdout)
    assert (one["study"], one["done"], one["total"]) == ("miniature", TRIALS, TRIALS)
    ran = ogive("status", "miniature", folder=folder)
    assert f"{TRIALS} of {TRIALS} trials done" in ran.stdout
    told = json.loads(ogive("status", "miniature", "--json", folder=folder).stdout)
    assert [arm["variant"] for arm in told["arms"]] == [
        "baseline",
        "gelu on value",
        "rmsnorm on value",
    ]
    assert all(arm["compare_over"] == arm["compare_total"] == 2 for arm in told["arms"])


def test_a_broken_store_hides_no_other(finished):
    folder, _ = finished
    broken = folder / "ogive-runs" / "broken.sqlite"
    broken.write_text("not a store " * 100)
    told, answer = (ogive(verb, folder=folder) for verb in ("status", "answer"))
    broken.unlink()
    assert "not readable: ogive-runs/broken.sqlite" in told.stdout
    assert "miniature" in told.stdout
    assert answer.returncode == 0
    assert answer.stdout.startswith("Does it run?")


def test_the_answer_is_what_the_run_printed(finished):
    folder, printed = finished
    ran = ogive("answer", folder=folder)
    assert ran.returncode == 0
    assert ran.stdout.strip() in printed
    told = json.loads(ogive("answer", "miniature", "--json", folder=folder).stdout)
    (task,) = told["tasks"]
    assert [one["variant"] for one in task["comparisons"]] == ["gelu on value", "rmsnorm on value"]
    for one in task["comparisons"]:
        assert one["sentence"] in printed
        assert one["n"] == len(one["differences"]) == 2
    assert task["headline"] in printed


def test_a_quick_study_says_that_it_is_weak(finished):
    folder, _ = finished
    ran = ogive("study", "miniature.py", "--quick", folder=folder, OGIVE_RUNS="elsewhere")
    assert ran.returncode == 0
    assert "its verdicts are weak" in ran.stdout
    assert (folder / "elsewhere" / "miniature-quick.html").exists()


def test_the_report(finished, tmp_path):
    folder, _ = finished
    page = (folder / "ogive-runs" / "miniature.html").read_text()
    assert page.lower().startswith("<!doctype html>")
    assert "Does it run?" in page
    place = tmp_path / "deep" / "page.html"
    ran = ogive("report", "miniature", "--output", str(place), folder=folder)
    assert ran.stdout.strip() == str(place)
    # The run knew its own command; the verb can only know those of studies that come along.
    command = "ogive study miniature"
    assert f"{command}.py" in page
    assert place.read_text() == page.replace(f"{command}.py", command)


def test_other_sites_make_a_study_of_their_own(finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes(store_of(folder).read_bytes())
    words = ("--sites", "value=relu", "--store", str(copy))
    ran = ogive("study", "miniature.py", *words, folder=folder)
    assert ran.returncode == 0, ran.stderr
    assert "value=relu on text: " in ran.stdout
    assert "4 trials run" in ran.stdout  # the baseline's are shared
    told = json.loads(ogive("status", "--store", str(copy), "--json", folder=folder).stdout)
    assert [one["total"] for one in told] == [TRIALS, 8]
    assert told[0]["study"] == "miniature"

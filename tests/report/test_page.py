"""The page as text: what it says of whole, partial and broken studies, and how it is written."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import subprocess
import sys

import pytest
from markupsafe import Markup

from ogive.errors import StoreError
from ogive.lab import compare
from ogive.report import render_page, write_page
from ogive.report.page import json_block
from report import sample


def page_of(spec, rows, **options):
    return render_page(spec, rows, compare(spec, rows), **options)


def words_of(text: str) -> str:
    """The page's words: tags and the script's data away, white space squeezed, entities read."""
    text = re.sub(r"<(script|style).*?</\1>", " ", text, flags=re.DOTALL)
    return " ".join(Markup(text).striptags().split())


def data_of(text: str) -> dict:
    return json.loads(re.search(r'id="ogive-data">(.*?)</script>', text, re.DOTALL).group(1))


# --- the same rows give the same bytes ------------------------------------------------------------


def test_equal_rows_give_equal_bytes_in_another_process():
    here = page_of(sample.spec(), sample.rows(), receipts=sample.plan())
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from report import sample, test_page\n"
        "print(test_page.page_of(sample.spec(), sample.rows(), receipts=sample.plan()), end='')"
    )
    tests = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    told = os.environ | {"PYTHONHASHSEED": "77", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "1"}
    there = subprocess.run(
        [sys.executable, "-c", code, tests], capture_output=True, check=True, env=told
    )
    assert there.stdout == here.encode()


def test_another_score_gives_other_bytes():
    rows = sample.rows()
    before = page_of(sample.spec(), rows)
    rows[-1].result["score"] += 1e-3
    assert page_of(sample.spec(), rows) != before


def test_order_of_the_rows_does_not_matter_to_the_answer():
    rows = sample.rows(tuning=False)
    one, other = (data_of(page_of(sample.spec(), found)) for found in (rows, rows[::-1]))
    assert one["comparisons"] == other["comparisons"]
    assert one["tips"] == other["tips"]


def test_reading_results_needs_no_torch():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from report import sample, test_page\n"
        "test_page.page_of(sample.spec(), sample.rows(seeds=2))\n"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    tests = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
    subprocess.run([sys.executable, "-c", code, tests], check=True)


# --- what it says when there is little to say -----------------------------------------------------


def test_finished_study_shows_every_part():
    words = words_of(page_of(*sample.study()[:2], receipts=sample.plan()))
    for part in (
        "3 of 7 variants are better than the baseline",
        "Equivalent to the baseline",
        "How far from the baseline",
        "Seed by seed",
        "Learning curves",
        "What it costs",
        "Budget receipts",
        "Learning rates tried, and chosen",
        "None failed.",
        "5f0c7d1e9a3b2468",
        "9a1b2c3d4e5f6071",
        "ogive study demo",
        "2.13.0",
    ):
        assert part in words


def test_empty_study_says_so():
    words = words_of(page_of(sample.spec(), []))
    assert "There is no answer yet" in words
    assert "No trial has been planned or run yet" in words
    assert "better than the baseline:" not in words


def test_only_tuning_says_so():
    rows = [row for row in sample.rows() if row.role == "tune"]
    words = words_of(page_of(sample.spec(), rows))
    assert "So far only learning rates have been tuned" in words
    assert "There is no answer yet" in words
    assert "Learning rates tried, and chosen" in words
    assert "so no cost has been measured" in words


def test_one_seed_gives_differences_without_intervals():
    rows = [row for row in sample.rows(tuning=False) if row.seed == 0]
    text = page_of(sample.spec(), rows)
    assert "There is no answer yet" in words_of(text)
    assert text.count("(no interval)") >= len(sample.EFFECTS)
    assert "1 seeds" not in text


def test_all_failed_gives_every_reason():
    rows = [
        sample.row(variant=label, seed=seed, state="failed", reason=f"oh {label} {seed}")
        for label in ("baseline", *sample.EFFECTS)
        for seed in range(2)
    ]
    words = words_of(page_of(sample.spec(), rows))
    assert "Every trial failed" in words
    for row in rows:
        assert row.reason in words


def test_no_pair_at_all_is_said_once():
    rows = [row for row in sample.rows() if row.variant == "baseline"]
    words = words_of(page_of(sample.spec(), rows))
    assert "There is no answer yet" in words
    assert "No pair of trials has finished for" not in words


def test_study_without_tuning_says_what_that_means():
    rows = sample.rows(tuning=False)
    without = words_of(page_of(sample.spec(learning_rates=[3e-3]), rows))
    assert "none was tuned" in without
    assert "all arms train at one learning rate" in without
    assert "none was tuned" not in words_of(page_of(sample.spec(), rows))


def test_running_trials_are_announced():
    rows = sample.rows(tuning=False)
    rows[-1] = sample.row(variant=rows[-1].variant, seed=5, state="running")
    rows[-2] = sample.row(variant=rows[-2].variant, seed=4, state="pending")
    assert f"2 trials of {len(rows)} still to finish" in words_of(page_of(sample.spec(), rows))


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("baseline", "The baseline has no finished trial, so nothing can be compared."),
        ("gelu on value", "No pair of trials has finished for gelu on value."),
    ],
)
def test_missing_arm_is_named(gone, said):
    rows = [row for row in sample.rows() if row.variant != gone]
    assert said in words_of(page_of(sample.spec(), rows))
    assert said not in words_of(page_of(sample.spec(), sample.rows()))


def test_quick_study_calls_its_verdicts_weak():
    rows = sample.rows()
    assert "Its verdicts are weak" in words_of(page_of(sample.spec(quick=True), rows))
    assert "weak" not in words_of(page_of(sample.spec(), rows))
    few = [row for row in rows if row.seed < 3]
    assert "fewer than six seeds are weak" in words_of(page_of(sample.spec(), few))


def test_score_that_is_not_a_number_is_a_failure():
    rows = sample.rows(tuning=False)
    rows[-1].result["score"] = None
    words = words_of(page_of(sample.spec(), rows))
    assert "it finished, but its score is not a number" in words


def test_rows_that_lack_things_still_get_a_page():
    rows = [
        sample.row(variant=label, seed=seed, result={"score": 1.0 + seed, "curve": None})
        for label in ("baseline", "gelu on value")
        for seed in range(3)
    ]
    words = words_of(page_of(sample.spec(), rows))
    assert "no curve yet" in words
    assert "gelu on value" in words


def test_several_tasks_are_told_apart():
    spec, rows, comparisons = sample.study(tasks=("text", "recall"))
    words = words_of(render_page(spec, rows, comparisons))
    assert "On text. 3 of 7 variants are better" in words
    assert "On recall. 3 of 7 variants are better" in words
    assert "difference from the baseline, accuracy" in words
    assert "difference from the baseline, nats per byte" in words


def test_ten_thousand_rows_are_drawn_in_part_and_said_so():
    effects = {f"variant {number}": 0.01 * (number % 7 - 3) for number in range(100)}
    spec, rows = sample.spec(effects), sample.rows(effects, seeds=99, tuning=False, points=2)
    few = [row for row in rows if row.seed < 12]  # the lab's exact test takes its time above 16
    text = render_page(spec, rows, compare(spec, few))
    assert len(rows) == 9999
    assert len(text) < 5_000_000
    words = words_of(text)
    assert "The first 60 of 100 variants are drawn; the tables hold all." in words
    assert "The first 24 of 100 variants are drawn; the tables hold all." in words
    assert "The first 2,000 of 9,999; the store holds the others." in words
    assert "of 99 seeds; 33 drawn" in words
    assert "variant 99" in words
    drawn = [key.rpartition("-mark")[0] for key in data_of(text)["tips"]]
    assert drawn.count("t0-forest-wide") == 60
    assert len({key for key in drawn if key.startswith("t0-pairs")}) == 24
    assert drawn.count("t0-pairs-0") == 33


# --- escaping -------------------------------------------------------------------------------------


def test_json_block_holds_no_character_that_ends_a_script():
    value = {"</script><!--": ["<&>", "\u2028\u2029", {"é": None}]}
    block = json_block(value)
    assert json.loads(block) == value
    assert not set("<>&\u2028\u2029") & set(block)


def test_json_block_refuses_what_json_cannot_say():
    with pytest.raises(ValueError, match="JSON"):
        json_block({"score": float("nan")})


def test_policy_names_the_hashes_of_what_the_page_holds():
    import base64
    import hashlib

    text = page_of(sample.spec(), [])
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text).group(1)
    policy = str(Markup(policy).unescape())
    for tag, kind in (("<style>", "style"), ("<script>", "script")):
        start = text.index(tag) + len(tag)
        inside = text[start : text.index(f"</{kind}>", start)]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert text.index("Content-Security-Policy") < text.index("<style>")


# --- the file -------------------------------------------------------------------------------------


def write(path):
    spec = sample.spec()
    return write_page(spec, [], compare(spec, []), path)


def test_file_appears_in_a_new_folder(tmp_path):
    path = write(tmp_path / "runs" / "demo.html")
    assert path.read_text() == page_of(sample.spec(), [])
    assert [entry.name for entry in path.parent.iterdir()] == ["demo.html"]


@pytest.fixture
def little_room():
    """No file may grow beyond 1,000 bytes, as on a disk that fills up in the middle of one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def check_old_report_is_kept(path, match):
    with pytest.raises(StoreError, match=match) as caught:
        write(path)
    assert str(path) in str(caught.value)
    assert "bytes needed" in str(caught.value)
    assert path.read_text() == "the report of yesterday"
    assert [entry.name for entry in path.parent.iterdir()] == ["demo.html"]


def test_file_that_cannot_grow_leaves_the_old_report(tmp_path, little_room):
    (tmp_path / "demo.html").write_text("the report of yesterday")
    check_old_report_is_kept(tmp_path / "demo.html", "File too large")


def test_full_disk_at_the_last_moment_leaves_the_old_report(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "demo.html").write_text("the report of yesterday")
    monkeypatch.setattr(os, "fsync", full)
    check_old_report_is_kept(tmp_path / "demo.html", "No space left on device")


def test_folder_in_the_place_of_the_file_is_left_alone(tmp_path):
    (tmp_path / "demo.html").mkdir()
    with pytest.raises(StoreError, match=r"demo\.html: Is a directory"):
        write(tmp_path / "demo.html")
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo.html"]


def test_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "runs").write_text("not a folder")
    with pytest.raises(StoreError, match=r"runs/demo\.html"):
        write(tmp_path / "runs" / "demo.html")


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="the superuser may write into read-only folders",
)
def test_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(StoreError, match="Permission denied"):
            write(tmp_path / "demo.html")
    finally:
        tmp_path.chmod(0o700)

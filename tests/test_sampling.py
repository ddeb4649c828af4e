"""The sample is stable, covers every axis, and grows to the whole grid when asked."""

from __future__ import annotations

import itertools

import pytest

from sampling import sampled

GRID = list(itertools.product(range(9), "abcdefg", [0.1, 0.2], ["x", "y", "z"]))


@pytest.fixture(autouse=True)
def everyday(monkeypatch):
    monkeypatch.delenv("OGIVE_TEST_ALL", raising=False)


def test_a_sample_is_the_same_each_time_and_in_grid_order():
    chosen = sampled(GRID, 30)
    assert len(chosen) == 30
    assert chosen == sampled(iter(GRID), 30)
    assert chosen == [case for case in GRID if case in set(chosen)]


def test_the_choice_is_pinned():
    """A change of the hash would silently change which cases every run has been trying."""
    assert sampled(range(1000), 4) == [356, 815, 858, 929]


def test_every_value_of_every_axis_is_tried():
    chosen = sampled(GRID, 30)
    for axis in range(4):
        assert {case[axis] for case in chosen} == {case[axis] for case in GRID}


def test_a_new_case_moves_few_of_the_others():
    before, after = sampled(range(1000), 100), sampled(range(1001), 100)
    assert len(set(before) - set(after)) <= 1


def test_salt_chooses_otherwise():
    assert sampled(GRID, 30) != sampled(GRID, 30, salt="other")


def test_everything_when_asked(monkeypatch):
    monkeypatch.setenv("OGIVE_TEST_ALL", "1")
    assert sampled(GRID, 3) == GRID


def test_what_cannot_be_sampled_is_refused():
    with pytest.raises(ValueError, match="tests nothing"):
        sampled([], 3)
    with pytest.raises(ValueError, match="tests nothing"):
        sampled(GRID, 0)
    with pytest.raises(ValueError, match="address"):
        sampled([object(), object()], 1)

"""Every mutant's place is still there: one that cannot be applied proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutants.catalogue import HOME, MUTANTS

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_its_place_is_there_once(mutant):
    text = (ROOT / HOME / mutant.file).read_text()
    assert mutant.applied(text) != text


def test_there_are_enough_of_them():
    assert len(MUTANTS) >= 25
    assert len({m.name for m in MUTANTS}) == len(MUTANTS)
    assert sum(bool(m.survives) for m in MUTANTS) * 25 <= len(MUTANTS)


def test_bites_where_a_place_has_gone_or_is_not_one():
    mutant = MUTANTS[0]
    with pytest.raises(LookupError, match="0 times"):
        mutant.applied("something else")
    with pytest.raises(LookupError, match="2 times"):
        mutant.applied(mutant.old * 2)

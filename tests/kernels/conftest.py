"""Counts torture cases and says the number at the end of a run."""

from __future__ import annotations

from collections import Counter

import pytest

MARK = "torture cases "


@pytest.fixture
def count(record_property):
    """count(table, number): so many cases of a table were run and held."""

    def record(table: str, number: int) -> None:
        assert number > 0, f"{table} ran no case"
        record_property(MARK + table, number)

    return record


def _properties(terminalreporter, outcome):
    reports = terminalreporter.stats.get(outcome, [])
    calls = (r for r in reports if getattr(r, "when", None) == "call")
    return [pair for report in calls for pair in report.user_properties]


def pytest_terminal_summary(terminalreporter):
    """`torture: 12345 cases, 0 violations (T1 2000, …)`, from whatever ran, on any worker."""
    totals: Counter[str] = Counter()
    for name, number in _properties(terminalreporter, "passed"):
        if name.startswith(MARK):
            totals[name.removeprefix(MARK)] += number
    failed = terminalreporter.stats.get("failed", [])
    broken = sum("tests/kernels/" in report.nodeid for report in failed)
    twins = [value for name, value in _properties(terminalreporter, "passed") if name == "twin"]
    if twins:
        terminalreporter.write_line(
            f"wrong twins killed: {len(twins)} ({'; '.join(sorted(twins))})"
        )
    if totals:
        each = ", ".join(f"{name} {number}" for name, number in sorted(totals.items()))
        verdict = f"{broken} tests broken" if broken else "0 violations"
        terminalreporter.write_line(f"torture: {totals.total()} cases, {verdict} ({each})")

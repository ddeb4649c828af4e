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


def pytest_terminal_summary(terminalreporter):
    """`torture: 12345 cases, 0 violations (T1 2000, …)`, from whatever ran, on any worker."""
    totals: Counter[str] = Counter()
    broken = 0
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, []):
            tables = [p for p in getattr(report, "user_properties", []) if p[0].startswith(MARK)]
            if getattr(report, "when", None) == "call":
                totals.update({name.removeprefix(MARK): number for name, number in tables})
        if outcome == "failed":
            here = terminalreporter.stats.get(outcome, [])
            broken = sum("tests/kernels/" in str(report.nodeid) for report in here)
    if totals:
        each = ", ".join(f"{name} {number}" for name, number in sorted(totals.items()))
        verdict = f"{broken} tests broken" if broken else "0 violations"
        terminalreporter.write_line(f"torture: {totals.total()} cases, {verdict} ({each})")

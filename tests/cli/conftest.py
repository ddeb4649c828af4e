"""One miniature study that ran through, for the tests that read what came of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from commandline import ogive, write_miniature


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> tuple[Path, str]:
    """A folder in which the miniature study ran through, and what was printed."""
    folder = tmp_path_factory.mktemp("finished")
    write_miniature(folder)
    ran = ogive("study", "miniature.py", folder=folder)
    assert ran.returncode == 0, ran.stderr
    return folder, ran.stdout

"""One browser for all tests of a worker; it is started when the first of them asks for it."""

from __future__ import annotations

import pytest

from report.browser import Browser, find_chromium


@pytest.fixture(scope="session")
def browser():
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine: `make setup` installs Debian's `chromium`")
    opened = Browser(program)
    yield opened
    opened.close()

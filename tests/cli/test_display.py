"""The table of verdicts fits its terminal; a real terminal sees it, a log gets few lines."""

from __future__ import annotations

import dataclasses
import fcntl
import io
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import types

import pytest
from rich.console import Console

from commandline import environment, ogive
from ogive.cli import paper, places, verdicts, watching
from ogive.lab import Comparison, Progress

NAN = math.nan


def comparison(**changes) -> Comparison:
    """A comparison with plausible numbers; fields that the display does not read are empty."""
    known = {
        "task": "text", "variant": "gelu on value", "control": False, "metric": "nats per byte",
        "higher_is_better": False, "margin": 0.01, "weak": False, "verdict": "worse",
        "measurable": True, "effect": 0.0312, "low": 0.0201, "high": 0.0423, "low90": 0.022,
        "high90": 0.041, "sd": 0.01, "n": 6, "planned": 6, "failed": 0, "correlation": 0.6,
        "p_value": 0.001, "p_holm": 0.002, "p_signflip": 0.03, "more_seeds": None, "cost": 1.034,
        "reasons": (),
    }  # fmt: skip
    names = [field.name for field in dataclasses.fields(Comparison)]
    return Comparison(**{**dict.fromkeys(names), **known, **changes})


def waiting(**changes) -> Comparison:
    unknown = dict.fromkeys(("effect", "low", "high", "low90", "high90", "sd", "cost"), NAN)
    return comparison(verdict="undecided", n=0, **unknown, **changes)


def rendered(comparisons, columns: int, rows: int | None = None) -> list[str]:
    page = Console(file=io.StringIO(), width=columns, force_terminal=False, color_system=None)
    page.print(verdicts.table(comparisons, columns, rows))
    return page.file.getvalue().rstrip().splitlines()


MANY = [
    comparison(variant="relu on query", verdict="equivalent", effect=0.001, low=-0.004, high=0.006),
    comparison(),
    comparison(variant="sigmoid gate on mixed", verdict="better", effect=-0.5, low=-0.6, high=-0.4),
    waiting(variant="constant gate on value", control=True),
    comparison(variant="a label that is much longer than any table can ever show" * 2, failed=2),
]


@pytest.mark.parametrize("columns", [60, 72, 80, 96, 100, 140])
def test_the_table_fits(columns):
    lines = rendered(MANY, columns)
    assert max(map(len, lines)) <= columns
    text = "\n".join(lines)
    for words in ("gelu on value", "▼ worse", "▲ better", "■ equivalent", "· waiting", "+0.031"):
        assert words in text
    assert "4/6" not in text


def test_more_room_shows_more():
    few = MANY[:4]  # with names of ordinary length
    narrow, middle, wide = ("\n".join(rendered(few, columns)) for columns in (60, 90, 120))
    assert "constant gate on value control" not in narrow
    assert "±" in narrow
    assert "+0.020 to +0.042" in middle
    assert "+0.020 to +0.042" in wide
    assert "×1.03" in middle
    assert "●" not in middle
    assert "●" in wide
    assert "better ←  → worse" in wide


def test_what_does_not_fit_is_counted():
    lines = rendered(MANY * 4, 80, rows=10)
    assert len(lines) <= 10
    assert "… and 14 more" in lines[-1]
    assert len(rendered(MANY, 80, rows=50)) > len(MANY)


def test_tasks_are_told_apart():
    lines = rendered([comparison(), comparison(task="recall", metric="accuracy")], 80)
    assert sum(line.strip() == "recall, accuracy" for line in lines) == 1


def test_the_strip_puts_effects_on_their_side():
    better, worse = (rendered([one], 140)[-1] for one in (MANY[2], MANY[1]))
    assert better.index("●") < better.index("┊")
    assert worse.index("┊") < worse.index("●")


def progress(**changes) -> Progress:
    known = {"phase": "running", "done": 3, "running": 2, "failed": 0, "total": 12, "elapsed": 9.0,
             "eta": 200.0, "rows": [], "comparisons": MANY}  # fmt: skip
    return Progress(**{**known, **changes})


@pytest.mark.parametrize("size", [(60, 12), (60, 24), (120, 40)])
def test_the_picture_fits_a_terminal(size):
    page = Console(file=io.StringIO(), width=size[0], height=size[1], color_system=None)
    page.print(watching.picture(progress(comparisons=MANY * 3), page))
    lines = page.file.getvalue().splitlines()
    assert len(lines) < size[1]
    assert max(map(len, lines)) <= size[0]
    assert "3 of 12 done · 2 running · 0 failed · about 3 min left" in lines[-1]
    assert lines[-2].count("━") == round((len(lines[-2])) * 3 / 12)


def test_the_wait_for_verdicts_is_explained():
    page = Console(file=io.StringIO(), width=80, height=24, color_system=None)
    rung, waits = (types.SimpleNamespace(role=r, state="pending") for r in ("tune", "compare"))
    runs = types.SimpleNamespace(role="compare", state="running")
    for rows in ([rung, waits], [rung, runs], [waits]):
        page.print(watching.picture(progress(rows=rows), page))
    assert page.file.getvalue().count(watching.TUNING) == 1


def test_a_log_gets_few_lines(capsys, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watching.time, "monotonic", lambda: now[0])
    with watching.watching() as show:
        show(progress(phase="planning", done=0))
        for done in range(13):
            now[0] += 4.0
            show(progress(done=done))
        show(progress(phase="done", done=12))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("planning")
    assert lines[-1].startswith("12 of 12 done")
    assert len(lines) == 5  # planning, the first trial, two in between, the end


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.2, "1 s"), (89, "89 s"), (130, "2 min"), (7500, "2 h 5 min")]
)
def test_durations(seconds, said):
    assert paper.duration(seconds) == said


def in_a_terminal(words, folder, columns: int, **changes: str) -> str:
    """What a terminal of that width receives."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    env = environment(**{"TERM": "xterm-256color", **changes})
    env.pop("COLUMNS")
    running = subprocess.Popen(
        [sys.executable, "-m", "ogive", *words],
        cwd=folder, env=env, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True,
    )  # fmt: skip
    os.close(theirs)
    received = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        received += piece
    os.close(ours)
    assert running.wait(60) == 0
    return received.decode()


COLOUR = re.compile(r"\x1b\[(?!0?m)[0-9;]*m")
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def test_a_narrow_terminal(finished):
    received = in_a_terminal(("study", "miniature.py"), finished[0], 60)
    assert CONTROL.search(received)  # it moves the cursor
    assert COLOUR.search(received)
    lines = re.split(r"[\r\n]+|\x1b\[\d*A", received)  # a line ends where the cursor moves up, too
    assert max(len(CONTROL.sub("", line)) for line in lines) <= 60
    assert "gelu on value" in received
    assert "━" in received


def test_no_color(finished):
    received = in_a_terminal(("study", "miniature.py"), finished[0], 80, NO_COLOR="1")
    shown = [
        found for found in COLOUR.findall(received) if not re.fullmatch(r"\x1b\[[1-9]m", found)
    ]
    assert shown == []  # dim and bold are no colours
    assert "Answer: " in received


def test_a_dumb_terminal_gets_plain_lines(finished):
    received = in_a_terminal(("status",), finished[0], 80, TERM="dumb")
    assert "\x1b" not in received


def test_a_pipe_gets_no_colours_whatever_the_environment_says(finished):
    ran = ogive("status", "miniature", folder=finished[0], FORCE_COLOR="1", TTY_COMPATIBLE="1")
    assert ran.returncode == 0
    assert "\x1b" not in ran.stdout


def test_how_to_call_again(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ogive"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(program), "study", "a b.py"])
    assert places.again() == "bin/ogive study 'a b.py'"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert places.again() == "ogive study 'a b.py'"
    monkeypatch.setattr(sys, "argv", ["/somewhere/ogive/__main__.py", "demo"])
    assert places.again() == "python -m ogive demo"

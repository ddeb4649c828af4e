"""The entry point: its verbs, and what becomes of an error, of Ctrl-C and of a closed pipe.

Exit codes: 0 done, 2 bad input (one line on stderr, no traceback), 130 stopped by Ctrl-C,
1 whoever read the output went away. Verbs import what they need when they run, so that `--help`
waits for nothing.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

import ogive
from ogive.cli import answer, bench, demo, parts, report, status, study
from ogive.errors import OgiveError

app = typer.Typer(
    help="Where nonlinearity lives in attention, whether it pays there, and what it costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("demo")(demo.demo)
app.command("study")(study.study)
app.command("status")(status.status)
app.command("answer")(answer.answer)
app.command("report")(report.report)
app.command("parts")(parts.parts)
app.command("bench")(bench.bench)


def _version(asked: bool) -> None:
    if asked:
        print(f"ogive {ogive.__version__}")
        raise typer.Exit


@app.callback(epilog="Begin with: ogive demo")
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Where nonlinearity lives in attention, whether it pays there, and what it costs."""


def main() -> None:
    """Run the command line and exit with its code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has no ▲ shows a ?, and goes on
    sys.exit(_run())


def _run() -> int:
    code: object = 0
    try:
        app()
    except OgiveError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except SystemExit as leaving:
        code = leaving.code
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # What is still buffered goes nowhere, or Python would complain about it while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else int(bool(code))

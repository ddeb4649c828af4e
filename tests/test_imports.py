"""The root gives a dozen names on first use; what needs no torch starts without it."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ogive


@pytest.mark.parametrize("name", ogive.__all__)
def test_every_name_of_the_root_loads(name):
    assert getattr(ogive, name) is not None
    assert name in dir(ogive)


def test_the_root_is_small():
    assert len(ogive.__all__) <= 15
    assert ogive.__all__ == sorted(ogive.__all__)


def test_types_and_table_name_the_same_homes():
    """What a type checker reads and what runs must not drift apart."""
    tree = ast.parse(Path(ogive.__file__).read_text())
    block = next(n for n in tree.body if isinstance(n, ast.If))
    typed = {
        alias.name: line.module
        for line in block.body
        if isinstance(line, ast.ImportFrom)
        for alias in line.names
    }
    packages = dict.fromkeys(["errors", "parts"], "ogive")
    assert typed == {**ogive._HOMES, **packages}
    assert set(typed) == set(ogive.__all__)


def test_an_unknown_name_says_what_there_is():
    with pytest.raises(AttributeError, match=r"no attribute 'atention'.*attention"):
        ogive.atention  # noqa: B018


def test_the_version_is_the_distributions():
    from importlib.metadata import version

    assert version("ogive") == ogive.__version__


# At the end of a process, after all it says: the names of the modules that it has loaded.
ENDING = "import atexit, sys; atexit.register(lambda: print('\\n@', *sys.modules))\n"


def loaded(code: str, folder: Path) -> set[str]:
    """The names of all modules that a fresh process has loaded when it ends."""
    ran = subprocess.run(
        [sys.executable, "-c", ENDING + code],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "@" in ran.stdout, ran.stderr
    return set(ran.stdout.rpartition("@")[2].split())


def test_the_root_loads_nothing(tmp_path):
    modules = loaded(
        "import ogive; ogive.__version__; dir(ogive); ogive.errors.OgiveError", tmp_path
    )
    assert not modules & {"torch", "numpy", "scipy", "matplotlib"}
    assert "torch" in loaded("import ogive; ogive.Sites", tmp_path)


STUDY = """
from ogive.lab import Study

study = Study(
    name="tiny",
    question="Does a study of three steps run?",
    variants={"gelu": "query=gelu"},
    tasks=("recall",),
    seeds=2,
    learning_rates=(0.001,),
    model={"width": 16, "depth": 1, "heads": 2, "hidden": 32},
    train={"steps": 3, "batch": 2},
)
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A folder in which a tiny study has really run."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "tiny.py").write_text(STUDY)
    ran = ogive_command(["study", "tiny.py"], folder)
    assert ran.returncode == 0, ran.stderr
    return folder


def ogive_command(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """The command line in a fresh process, which then prints what it had loaded."""
    code = f"import sys; sys.argv = {['ogive', *words]!r}\nfrom ogive.cli.main import main; main()"
    command = [sys.executable, "-c", ENDING + code]
    environment = {**os.environ, "OGIVE_RUNS": str(folder / "ogive-runs")}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "words",
    [["--help"], ["--version"], ["demo", "--help"], ["status"], ["answer"], ["report"]],
    ids=" ".join,
)
def test_reading_never_waits_for_torch(words, runs):
    ran = ogive_command(words, runs)
    assert ran.returncode == 0, ran.stderr
    shown, _, modules = ran.stdout.rpartition("@")
    assert shown.strip()
    assert "torch" not in modules.split()


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["status"]], ids=" ".join)
def test_what_is_asked_often_loads_little(words, runs):
    """These start in under 0.3 s because nothing heavy is loaded, which a clock cannot show."""
    modules = set(ogive_command(words, runs).stdout.rpartition("@")[2].split())
    assert "ogive.cli.main" in modules
    assert not modules & {"torch", "numpy", "scipy", "matplotlib", "jinja2"}


def test_a_verb_that_computes_does_load_torch(runs):
    """Else the tests above would pass for a command that does nothing."""
    assert "torch" in ogive_command(["parts"], runs).stdout.rpartition("@")[2].split()

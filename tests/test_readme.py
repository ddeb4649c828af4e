"""What the README and the other pages say runs, exists and resolves."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
PAGES = sorted([*HOUSE.glob("*.md"), *(HOUSE / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(HOUSE)) for page in PAGES if "_build" not in page.parts]


def read(name: str) -> str:
    """A page without its comments, which readers do not see."""
    return re.sub(r"<!--.*?-->", "", (HOUSE / name).read_text(), flags=re.DOTALL)


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def run_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code as a reader would, in a process and a folder of its own; warnings are errors."""
    theirs = "ignore:`torch.jit.script` is deprecated"  # x-transformers, while it is imported
    command = [sys.executable, "-W", "error", "-W", theirs, "-c", code]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


RUN = ["README.md", "docs/index.md", "docs/sites.md", "docs/migration.md"]


@pytest.mark.parametrize("name", RUN)
def test_python_blocks_run(name, tmp_path):
    code = blocks(read(name), "python")
    assert code, f"{name} shows no Python"
    for block in code:
        ran = run_python(block, tmp_path)
        assert ran.returncode == 0, ran.stderr


def test_the_first_block_of_the_readme_is_short():
    lines = [line for line in blocks(read("README.md"), "python")[0].splitlines() if line.strip()]
    assert len(lines) <= 10


NEW_PARTS = [
    ("CONTRIBUTING.md", "weight", "arctan"),
    ("docs/extending.md", "map", "softsign"),
    ("docs/extending.md", "score", "negative_l1"),
]
MODULES = {"map": "maps", "score": "scores", "weight": "weights"}


@pytest.mark.parametrize(("page", "family", "name"), NEW_PARTS)
def test_the_class_that_is_shown_is_all_it_takes(page, family, name, tmp_path):
    """Defined as shown, inside its module, the part is at once found, written and used."""
    shown = next(block for block in blocks(read(page), "python") if f'name = "{name}"' in block)
    site = {"map": "query", "score": "score", "weight": "weight"}[family]
    code = f"""
import math, torch
from ogive.parts import {MODULES[family]} as home, build, catalogue
vars(home)["math"] = math
exec({shown!r}, vars(home))
assert {name!r} in catalogue({family!r})
import ogive
sites = ogive.Sites.parse("{site}={name}")
assert str(sites) == "{site}={name}", str(sites)
layer = ogive.Attention(8, 2, sites=sites)
x = torch.randn(1, 5, 8, requires_grad=True)
layer(x, is_causal=True)[:, 2].sum().backward()
assert x.grad.isfinite().all() and (x.grad[:, :3] != 0).any() and (x.grad[:, 3:] == 0).all()
"""
    ran = run_python(code, tmp_path)
    assert ran.returncode == 0, ran.stderr


def test_make_reads_its_file():
    """`make` itself: the targets below are found in the text, where a broken line goes unseen."""
    ran = subprocess.run(
        ["make", "-n", "help"], cwd=HOUSE, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr


def make_targets() -> set[str]:
    text = (HOUSE / "Makefile").read_text()
    return set(re.findall(r"^([a-z][a-z-]*):.*##", text, flags=re.MULTILINE))


def commands(text: str, program: str) -> list[list[str]]:
    """Every line of a shell block that calls the program, as words."""
    lines = [line for block in blocks(text, "sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[1:] for line in words if line and Path(line[0]).name == program]


def unknown_targets(text: str) -> set[str]:
    inline = re.findall(r"`make ([a-z-]+)", text)
    return {*inline, *(line[0] for line in commands(text, "make"))} - make_targets()


def wrong_calls(text: str) -> list[str]:
    """Calls of `ogive` in shell blocks whose verb or options do not exist."""
    import typer.main

    from ogive.cli.main import app

    verbs = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    wrong = [verb for verb in re.findall(r"`ogive ([a-z]+)", text) if verb not in verbs]
    for verb, *rest in commands(text, "ogive"):
        known = [o for p in verbs[verb].params for o in p.opts] if verb in verbs else []
        wrong += [verb] if verb not in verbs else []
        wrong += [f"{verb} {word}" for word in rest if word.startswith("--") and word not in known]
    return wrong


@pytest.mark.parametrize("name", NAMES)
def test_make_targets_exist(name):
    assert unknown_targets(read(name)) == set()


@pytest.mark.parametrize("name", NAMES)
def test_ogive_commands_exist(name):
    assert wrong_calls(read(name)) == []


def dead_links(name: str, text: str) -> list[str]:
    """Targets of links and images, other than on the web, that are not files."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    inside = [t.partition("#")[0] for t in targets if not re.match(r"[a-z]+:", t)]
    return [t for t in inside if t and not ((HOUSE / name).parent / t).exists()]


@pytest.mark.parametrize("name", NAMES)
def test_links_and_images_resolve(name):
    assert dead_links(name, read(name)) == []


def test_bites():
    wrong = (
        "```sh\nmake dmeo ARGS=1\nogive demo --quik\nogive aks\n```\n`make tset` `ogive prats`\n"
    )
    assert unknown_targets(wrong) == {"dmeo", "tset"}
    assert wrong_calls(wrong) == ["prats", "demo --quik", "aks"]
    assert dead_links(
        "README.md", "[a](gone.md#x) ![b](docs/no.svg) [c](LICENSE) [d](https://e.f)"
    ) == [
        "gone.md",
        "docs/no.svg",
    ]


def test_the_drawing_is_up_to_date_and_names_every_site():
    drawn = subprocess.run(
        [sys.executable, str(HOUSE / "docs/draw_sites.py"), "--check"], check=False
    )
    assert drawn.returncode == 0
    from dataclasses import fields

    from ogive.parts import Sites

    text = (HOUSE / "docs/images/sites.svg").read_text()
    assert [f.name for f in fields(Sites) if f'class="name">{f.name}<' not in text] == []

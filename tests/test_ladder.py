"""Imports climb one way only, nothing goes round in a circle, and the page never waits for torch.

    errors, shapes → parts → kernels → layers → models, integrations → probe, lab → report → cli

Every import counts, inside functions too; one for types only counts as a climb, not in a circle.
Names on one rung do not import each other.
"""

from __future__ import annotations

import ast
import graphlib
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "ogive"

RUNGS = [
    {"errors", "shapes"},
    {"parts"},
    {"kernels"},
    {"layers"},
    {"models", "integrations"},
    {"probe", "lab"},
    {"report"},
    {"cli"},
]
RANK = {name: rank for rank, names in enumerate(RUNGS) for name in names}

# These start without torch: nothing that loads along with them reaches it.
STARTS_WITHOUT_TORCH = [
    "ogive",
    "ogive.errors",
    "ogive.lab",
    "ogive.lab.run",
    "ogive.lab.stats",
    "ogive.lab.store",
    "ogive.lab.study",
    "ogive.report*",
    "ogive.cli*",
]
# These never name torch at all, inside functions neither.
NEVER_TORCH = ["ogive.lab.stats", "ogive.report*"]


@dataclass(frozen=True)
class Import:
    """One import statement's target, where it stands, and when it runs."""

    target: str
    line: int
    when: str  # "start": with the module; "later": inside a function; "never": for types only


def read_tree(root: Path) -> dict[str, list[Import]]:
    """Every module under root, by its full name, with what it imports."""
    files = {_module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    return {name: _imports(name, path, files) for name, path in files.items()}


def _module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(module: str, path: Path, known: dict[str, Path]) -> list[Import]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found: list[Import] = []

    def visit(node: ast.AST, when: str) -> None:
        for target in _targets(node, package, known):
            found.append(Import(target, node.lineno, when))  # type: ignore[attr-defined]
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            when = "never"
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            when = "later" if when == "start" else when
        for child in ast.iter_child_nodes(node):
            visit(child, when)

    visit(ast.parse(path.read_text()), "start")
    return found


def _targets(node: ast.AST, package: str, known: dict[str, Path]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if alias.name != "ogive"]
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ogive":
        return [_of_root(node.attr, known)]  # after `import ogive`
    if isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        if base == "ogive":
            return [_of_root(alias.name, known) for alias in node.names]
        inside = [f"{base}.{alias.name}" for alias in node.names]
        return [full if full in known else base for full in inside]
    if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
        return [
            a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
        ]
    return []


def _of_root(name: str, known: dict[str, Path]) -> str:
    """`ogive.parts` for a package one level down; `ogive:Attention` for a name of the root."""
    return f"ogive.{name}" if f"ogive.{name}" in known else f"ogive:{name}"


def climbs(tree: dict[str, list[Import]]) -> list[str]:
    """Imports of something higher on the ladder, beside on the same rung, or not on it at all."""
    return [
        f"{module}:{item.line} imports {item.target}"
        for module, imports in tree.items()
        for item in imports
        if item.target.partition(":")[0].split(".")[0] == "ogive"
        and not _allowed(module, item.target)
    ]


def _allowed(module: str, target: str) -> bool:
    if module in ("ogive", "ogive.__main__") or target.startswith(
        "ogive:__"
    ):  # __version__, __file__
        return True
    here, there = module.split(".")[1], target.partition(":")[0].split(".")[1:2]
    if not there or here not in RANK or there[0] not in RANK:
        return False
    return here == there[0] or RANK[there[0]] < RANK[here]


def cycle(tree: dict[str, list[Import]]) -> list[str]:
    """One circle of modules that import each other, or an empty list."""
    graph = {
        module: {i.target for i in imports if i.target in tree and i.when != "never"}
        for module, imports in tree.items()
    }
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def loaded_at_start(tree: dict[str, list[Import]], module: str) -> dict[str, str]:
    """All that loads when the module does: each name with the module that asked for it first."""
    asked, waiting = {module: module}, [module]
    while waiting:
        name = waiting.pop()
        parents = [name.rpartition(".")[0]] if name.startswith("ogive.") else []
        wanted = [i.target.partition(":")[0] for i in tree.get(name, []) if i.when == "start"]
        for target in [*parents, *wanted]:
            if target not in asked:
                asked[target] = name
                waiting.append(target)
    return asked


def matching(tree: dict[str, list[Import]], patterns: list[str]) -> list[str]:
    return [module for module in tree if any(fnmatch(module, pattern) for pattern in patterns)]


def is_torch(target: str) -> bool:
    return target.split(".")[0] == "torch"


def waits_for_torch(tree: dict[str, list[Import]], module: str) -> list[str]:
    """Who, among all that loads with the module, imports torch."""
    return [asker for name, asker in loaded_at_start(tree, module).items() if is_torch(name)]


TREE = read_tree(SOURCE)


def test_no_import_climbs():
    assert climbs(TREE) == []


def test_no_import_cycle():
    assert cycle(TREE) == []


def test_every_package_is_on_the_ladder():
    names = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert {name for name in names if not name.startswith("__")} - {"py"} <= set(RANK)


@pytest.mark.parametrize("pattern", STARTS_WITHOUT_TORCH)
def test_starts_without_torch(pattern):
    modules = matching(TREE, [pattern])
    assert modules, f"no module is called {pattern}: has it moved?"
    assert {m: who for m in modules if (who := waits_for_torch(TREE, m))} == {}


@pytest.mark.parametrize("pattern", NEVER_TORCH)
def test_never_names_torch(pattern):
    modules = matching(TREE, [pattern])
    assert modules, f"no module is called {pattern}: has it moved?"
    assert [f"{m}:{i.line}" for m in modules for i in TREE[m] if is_torch(i.target)] == []


@pytest.fixture
def wrong_tree(tmp_path):
    """A tree with one of everything that the tests above must see."""
    files = {
        "__init__.py": "from ogive.parts import maps",
        "errors.py": "",
        "parts/__init__.py": "from ogive.parts.maps import relu",
        "parts/maps.py": "def relu():\n    from ..parts import weights",
        "parts/weights.py": "from . import maps\nimport torch",
        "parts/lazy.py": "import importlib as i\ndef f():\n    i.import_module('ogive.cli.main')",
        "kernels/__init__.py": "from ogive.layers import attention\nfrom ogive.errors import E",
        "layers/__init__.py": "import ogive.lab",
        "layers/attention.py": "from ogive import Attention\nfrom ogive import __version__",
        "layers/block.py": "import ogive\nogive.__version__\nogive.parts.maps\nogive.Sites",
        "lab/__init__.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch",
        "lab/stats.py": "from ogive.lab import verdict",
        "lab/verdict.py": "from ogive.parts.weights import w",
        "probe/__init__.py": "from ogive.lab import stats",
        "report/page.py": "def write():\n    import torch.nn",
        "extra/__init__.py": "from ogive.errors import E",
    }
    for name, text in files.items():
        path = tmp_path / "ogive" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return read_tree(tmp_path / "ogive")


def test_bites_on_climbing_imports(wrong_tree):
    assert climbs(wrong_tree) == [
        "ogive.extra:1 imports ogive.errors",
        "ogive.kernels:1 imports ogive.layers.attention",
        "ogive.layers:1 imports ogive.lab",
        "ogive.layers.attention:1 imports ogive:Attention",
        "ogive.layers.block:4 imports ogive:Sites",
        "ogive.parts.lazy:3 imports ogive.cli.main",
        "ogive.probe:1 imports ogive.lab.stats",
    ]


def test_bites_on_a_cycle(wrong_tree):
    assert set(cycle(wrong_tree)) == {"ogive.parts.maps", "ogive.parts.weights"}


def test_bites_on_torch(wrong_tree):
    assert waits_for_torch(wrong_tree, "ogive.parts.weights") == ["ogive.parts.weights"]
    assert waits_for_torch(wrong_tree, "ogive.lab") == []
    assert waits_for_torch(wrong_tree, "ogive.lab.stats") == ["ogive.parts.weights"]
    assert waits_for_torch(wrong_tree, "ogive.report.page") == []
    assert [i.line for i in wrong_tree["ogive.report.page"] if is_torch(i.target)] == [2]

"""citations: what is a paper about? A task on a graph of papers that you have on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ogive.errors import DataError
from ogive.lab.tasks import pickled
from ogive.lab.tasks.nodes import SPLITS, Graph, NodeTask

PARTS = ("x", "y", "tx", "ty", "allx", "ally", "graph", "test.index")
_VALIDATION = 500


class Citations(NodeTask):
    """Papers that cite each other, in the files of Planetoid: Cora, CiteSeer, PubMed or your own.

    No package ships these graphs, so the folder is yours: it holds `ind.NAME.x`, `.y`, `.tx`,
    `.ty`, `.allx`, `.ally`, `.graph` and `.test.index`, or `NAME.npz` (see `read_npz`). The raw
    files are pickles, which could run anything: they are read as data, and nothing in them is run.

    Args:
        folder: where the files are.
        dataset: NAME, such as `cora`.
        scored: which papers score a model, `test` or `validation`.

    Raises:
        DataError: the folder or a file is missing, or is not what it should be.
        UnknownName: an option that does not fit.
    """

    name = "citations"
    summary = "tell a paper's field from its words and the papers around it, in files of your own"
    source = "the format of Planetoid (Yang 2016, 1603.08861)"
    default_model: ClassVar = {"width": 64, "depth": 2, "heads": 8, "hidden": 64, "dropout": 0.5}
    default_train: ClassVar = {
        "steps": 200,
        "batch": 140,
        "lr": 4e-3,
        "warmup": 20,
        "evaluations": 4,
    }
    quick_train: ClassVar = {"steps": 60, "evaluations": 1}
    learning_rates = (2e-3, 4e-3, 8e-3)

    def __init__(self, *, folder: str = "", dataset: str = "cora", scored: str = "test") -> None:
        self.folder, self.dataset = str(folder), str(dataset)
        if not folder:
            raise DataError(
                "the task citations reads files of yours, and no folder was named: "
                "task_options={'citations': {'folder': …, 'dataset': 'cora'}}"
            )
        super().__init__(read_graph(Path(folder), self.dataset), scored)


def read_graph(folder: Path, dataset: str) -> Graph:
    """The graph in a folder: NAME.npz where there is one, else Planetoid's eight files.

    Raises:
        DataError: as `Citations`.
    """
    packed = folder / f"{dataset}.npz"
    return read_npz(packed) if packed.is_file() else read_planetoid(folder, dataset)


def read_planetoid(folder: Path, dataset: str) -> Graph:
    """The graph in Planetoid's files.

    Rows of features are scaled to a sum of one. Edges go both ways, each once, and none from a
    paper to itself. Test papers that the files leave out (CiteSeer has some) are there, without
    features, and never asked. Papers to validate on are the 500 after those to train on.

    Raises:
        DataError: a file is missing, damaged, or does not fit the others.
    """
    found = {part: _part(folder, dataset, part) for part in PARTS}
    test = found["test.index"]
    given, first = len(found["allx"]), int(test.min()) if len(test) else -1
    wide = {len(found[p].shape) == 2 and found[p].shape[1] for p in ("x", "tx", "allx")}
    deep = {len(found[p].shape) == 2 and found[p].shape[1] for p in ("y", "ty", "ally")}
    sizes = {part: len(found[part]) for part in PARTS}
    fits = (
        first == given
        and len(set(test.tolist())) == len(test)
        and sizes["tx"] == sizes["ty"] == sizes["test.index"]
        and sizes["x"] == sizes["y"] <= sizes["allx"] == sizes["ally"]
        and len(wide) == len(deep) == 1
        and False not in wide | deep
    )
    if not fits:
        raise DataError(
            f"{folder}/ind.{dataset}.*: the files do not fit together: rows {sizes}, the first "
            f"test paper is number {first} and must be number {given}"
        )
    nodes = int(test.max()) + 1
    x = np.zeros((nodes, found["x"].shape[1]), np.float32)
    y = np.zeros((nodes, found["y"].shape[1]), np.float32)
    x[:given], x[test] = found["allx"], found["tx"]
    y[:given], y[test] = found["ally"], found["ty"]
    train = np.arange(sizes["x"])
    validation = np.arange(sizes["x"], min(sizes["x"] + _VALIDATION, given))
    pairs = _both_ways(found["graph"], nodes, folder / f"ind.{dataset}.graph")
    x /= np.maximum(x.sum(1, keepdims=True), 1e-12)
    return _checked(x, pairs, y.argmax(1), (train, validation, test), folder)


def read_npz(path: Path) -> Graph:
    """A graph in one file of NumPy's arrays, without pickles.

    It holds `x` (nodes, features), `edge_index` (2, edges), sources then targets, `y` (nodes,)
    classes, and the numbers of the nodes to `train`, `validation` and `test` on.

    Raises:
        DataError: an array is missing or does not fit, or the file holds objects.
    """
    names = ("x", "edge_index", "y", *SPLITS)
    try:
        with np.load(path, allow_pickle=False) as held:
            missing = [name for name in names if name not in held]
            if missing:
                raise DataError(f"{path} lacks the arrays {missing}; {', '.join(names)} fit")
            x, edges, y, *split = (held[name] for name in names)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} cannot be read as arrays: {error}") from None
    return _checked(x, edges, y, tuple(split), path)


def _part(folder: Path, dataset: str, part: str) -> Any:
    """One of the files: an array, or for the graph its neighbours by number."""
    path = folder / f"ind.{dataset}.{part}"
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): the graph {dataset!r} is ind.{dataset}. "
            f"with each of {', '.join(PARTS)}, or {dataset}.npz"
        ) from None
    if part == "test.index":
        try:
            return np.array([int(line) for line in raw.split()], np.int64)
        except ValueError as error:
            raise DataError(f"{path} holds no numbers of papers: {error}") from None
    held = pickled.read(raw, path)
    if part != "graph":
        return pickled.array(held, path)
    grown = isinstance(held, pickled.Made) and held.name == "collections.defaultdict"
    neighbours = held.items if grown else held
    if not isinstance(neighbours, dict):
        raise DataError(f"{path} holds no neighbours by paper, but {held!r:.200}")
    return neighbours


def _both_ways(neighbours: dict, nodes: int, path: Path) -> np.ndarray:
    try:
        pairs = [(int(a), int(b)) for a, many in neighbours.items() for b in many if a != b]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} holds no neighbours by paper: {error}") from None
    wrong = [end for pair in pairs for end in pair if not 0 <= end < nodes]
    if wrong:
        raise DataError(f"{path} names paper {wrong[0]}, and there are {nodes}: 0 … {nodes - 1}")
    edges = np.array(pairs, np.int64).reshape(-1, 2).T
    return np.unique(np.concatenate([edges, edges[::-1]], 1), axis=1)


def _checked(x: np.ndarray, edges: np.ndarray, y: np.ndarray, split: tuple, where: object) -> Graph:
    """The graph of these arrays, once they are known to fit together."""
    whole = all(np.issubdtype(held.dtype, np.integer) for held in (edges, y, *split))
    shaped = x.ndim == 2 and y.shape == x.shape[:1] and edges.ndim == 2 and len(edges) == 2
    if not (whole and shaped and np.issubdtype(x.dtype, np.number)):
        raise DataError(
            f"{where}: x (nodes, features), edge_index (2, edges) and y (nodes,) fit, the last two "
            f"of whole numbers; not {x.shape}, {edges.shape} and {y.shape}"
        )
    limits = {"edge_index": edges, **dict(zip(SPLITS, split, strict=True))}
    for name, held in limits.items():
        if held.size and not 0 <= held.min() <= held.max() < len(x):
            raise DataError(f"{where}: {name} names nodes beyond the {len(x)} that there are")
    parts = [np.unique(part) for part in split]
    if not all(map(len, parts)) or len(np.unique(np.concatenate(parts))) < sum(map(len, parts)):
        raise DataError(f"{where}: {', '.join(SPLITS)} must each hold nodes, and share none")
    if not np.isfinite(x).all() or y.min() < 0:
        raise DataError(f"{where}: features must be finite, and classes count from zero")
    kinds = (np.float32, np.int64, np.int64)
    tensors = [
        torch.from_numpy(np.ascontiguousarray(held, kind))
        for held, kind in zip((x, edges, y), kinds, strict=True)
    ]
    nodes = [torch.from_numpy(part.astype(np.int64)) for part in parts]
    return Graph(tensors[0], tensors[1], tensors[2], dict(zip(SPLITS, nodes, strict=True)))

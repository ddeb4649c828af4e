"""Citations: Planetoid's files read as data, by formats old and new, and never run."""

from __future__ import annotations

import collections
import os
import pickle
import pickletools

import numpy as np
import pytest
import torch
from scipy import sparse

from ogive.errors import DataError
from ogive.lab import tasks
from ogive.lab.tasks import citations, pickled
from ogive.lab.train import train

PROTOCOLS = (0, 1, 2, 3, 4)
NODES, FEATURES, CLASSES, GIVEN = 12, 6, 3, 8


def numbers():
    draw = np.random.default_rng(0)
    x = (draw.random((NODES, FEATURES)) < 0.5).astype(np.float32)
    y = np.eye(CLASSES, dtype=np.int32)[draw.integers(CLASSES, size=NODES)]
    graph = collections.defaultdict(list)
    for a, b in draw.integers(NODES, size=(20, 2)):
        graph[int(a)].append(int(b))
    graph[3] += [3, 4, 4]  # a loop and an edge that comes twice
    return x, y, graph


def write(folder, protocol=2, shuffled=(10, 8, 11, 9), **changed):
    """A tiny folder in Planetoid's format; returns what it holds."""
    x, y, graph = numbers()
    test = np.array(shuffled)
    parts = {
        "x": sparse.csr_matrix(x[:4]),
        "y": y[:4],
        "allx": sparse.csr_matrix(x[:GIVEN]),
        "ally": y[:GIVEN],
        "tx": sparse.csr_matrix(x[test]),
        "ty": y[test],
        "graph": graph,
    }
    for name, part in (parts | changed).items():
        raw = part if isinstance(part, bytes) else pickle.dumps(part, protocol)
        (folder / f"ind.tiny.{name}").write_bytes(raw)
    (folder / "ind.tiny.test.index").write_text("\n".join(map(str, shuffled)) + "\n")
    return x, y, graph


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_folder_is_read_whatever_the_protocol(tmp_path, protocol):
    x, y, neighbours = write(tmp_path, protocol)
    graph = citations.read_planetoid(tmp_path, "tiny")
    wanted = x / np.maximum(x.sum(1, keepdims=True), 1e-12)
    np.testing.assert_allclose(graph.x.numpy(), wanted, rtol=1e-6)
    assert graph.answers.tolist() == y.argmax(1).tolist()
    pairs = {(a, b) for a, many in neighbours.items() for b in many if a != b}
    both = pairs | {(b, a) for a, b in pairs}
    assert set(map(tuple, graph.edge_index.T.tolist())) == both
    assert graph.edge_index.shape[1] == len(both)
    split = {name: nodes.tolist() for name, nodes in graph.split.items()}
    assert split == {"train": [0, 1, 2, 3], "validation": [4, 5, 6, 7], "test": [8, 9, 10, 11]}


def test_it_is_what_pyg_reads(tmp_path, monkeypatch):
    """With 500 papers to validate on, which PyG takes for granted."""
    from torch_geometric.io.planetoid import read_planetoid_data

    monkeypatch.setitem(globals(), "NODES", 520)
    monkeypatch.setitem(globals(), "GIVEN", 508)
    graph = numbers()[2]
    for paper, other in [(a, b) for a, cited in graph.items() for b in cited]:
        graph[other].append(paper)  # Planetoid's own files say every edge from both ends
    write(tmp_path, shuffled=tuple(range(519, 507, -1)), graph=graph)
    theirs = read_planetoid_data(str(tmp_path), "tiny")
    graph = citations.read_planetoid(tmp_path, "tiny")
    assert torch.equal(graph.edge_index, theirs.edge_index.unique(dim=1))
    assert graph.edge_index.shape == theirs.edge_index.shape
    assert torch.equal(graph.answers, theirs.y)
    torch.testing.assert_close(graph.x, theirs.x / theirs.x.sum(1, keepdim=True).clamp_min(1e-12))
    assert torch.equal(graph.split["test"], theirs.test_mask.nonzero()[:, 0])
    assert torch.equal(graph.split["train"], theirs.train_mask.nonzero()[:, 0])


def test_papers_that_the_files_leave_out(tmp_path):
    """As in CiteSeer: numbers 9 and 10 are in the graph alone."""
    _, y, _ = write(tmp_path, shuffled=(11, 8))
    graph = citations.read_planetoid(tmp_path, "tiny")
    assert len(graph.x) == NODES
    assert (graph.x[[9, 10]] == 0).all()
    assert graph.split["test"].tolist() == [8, 11]
    assert graph.answers[[8, 11]].tolist() == y[[8, 11]].argmax(1).tolist()


def test_a_model_trains_on_it(tmp_path):
    write(tmp_path)
    options = {"folder": str(tmp_path), "dataset": "tiny"}
    task = tasks.build("citations", options)
    assert task.options == {**options, "scored": "test"}
    config = {
        "task": {"name": "citations", "options": options, "version": task.version()},
        "sites": "score=gat mixed=elu",
        "model": task.default_model,
        "train": {**task.default_train, **task.quick_train, "steps": 3, "batch": 4},
        "seed": 0,
    }
    assert 0 <= train(config)["score"] <= 1


def test_the_version_is_that_of_the_files(tmp_path):
    write(tmp_path)
    options = {"folder": str(tmp_path), "dataset": "tiny"}
    before = tasks.build("citations", options).version()
    x, _, _ = numbers()
    x[0] = 1 - x[0]
    write(tmp_path, allx=sparse.csr_matrix(x[:GIVEN]))
    assert tasks.build("citations", options).version() != before


# Nothing is run.


class Harmful:
    """Its pickle writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("part", ["x", "ty", "graph"])
def test_a_harmful_pickle_is_not_run(tmp_path, part, protocol):
    trap = tmp_path / "trap"
    write(tmp_path, protocol, **{part: Harmful(trap)})
    with pytest.raises(DataError, match=rf"ind\.tiny\.{part}"):
        citations.read_planetoid(tmp_path, "tiny")
    assert not trap.exists()
    pickle.loads((tmp_path / f"ind.tiny.{part}").read_bytes())
    assert trap.exists()  # else the test above would pass for a harmless file


def test_a_harmful_pickle_among_good_numbers_is_not_run(tmp_path):
    """Hidden where arrays have their arguments, their bytes, and as a neighbour."""
    trap = tmp_path / "trap"
    graph = {0: [1, Harmful(trap)], 1: [0]}
    write(tmp_path, graph=graph)
    with pytest.raises(DataError, match="no neighbours by paper"):
        citations.read_planetoid(tmp_path, "tiny")
    objects = np.array([[Harmful(trap)]], dtype=object)
    write(tmp_path, ty=objects)
    with pytest.raises(DataError, match="'O8'"):
        citations.read_planetoid(tmp_path, "tiny")
    assert not trap.exists()


def test_the_reader_never_imports(monkeypatch):
    calls = []
    monkeypatch.setattr("builtins.__import__", lambda *a: calls.append(a))
    made = pickled.read(b"cno_such_module\nrun\n(S'rm'\ntR.", "it")
    monkeypatch.undo()
    assert (made.name, made.arguments, calls) == ("no_such_module.run", ("rm",), [])


# Formats.


@pytest.mark.parametrize("dtype", ["<f4", ">f8", "<i8", "u1", "bool", ">i2"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays(dtype, protocol):
    want = np.arange(12).reshape(3, 4).astype(dtype)
    for made in (want, np.asfortranarray(want), want[:0]):
        came = pickled.array(pickled.read(pickle.dumps(made, protocol), "it"), "it")
        np.testing.assert_array_equal(came, made)
        assert came.dtype == made.dtype


def test_arrays_of_python_2():
    """Bytes were text then: protocol 0 escapes them, protocol 2 writes them as they are."""
    data = np.array([1.5, -2.0, 300.0], "<f4")
    text = repr(data.tobytes())[1:]
    old = (
        "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n(I3\n"
        f"tcnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntbI00\nS{text}\ntb."
    )
    np.testing.assert_array_equal(pickled.array(pickled.read(old.encode(), "it"), "it"), data)
    held = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R("
    kind = b"cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNK\x00K\x00K\x00tb"
    newer = held + b"K\x01K\x03\x85" + kind + b"\x89U\x0c" + data.tobytes() + b"tb."
    np.testing.assert_array_equal(pickled.array(pickled.read(newer, "it"), "it"), data)
    graph = (
        b"ccollections\ndefaultdict\np1\n(c__builtin__\nlist\np2\ntRp3\n"
        b"I0\n(lp4\nI5\naI7\nasI5\n(lI0\nas."
    )
    assert pickled.read(graph, "it").items == {0: [5, 7], 5: [0]}
    matrix = pickle.dumps(sparse.csr_matrix(np.eye(3, dtype=np.float32)), 2)
    assert b"scipy.sparse" in matrix


def test_instructions_of_plain_data_are_all_known():
    plain = [
        1,
        -1,
        2**40,
        -(2**90),
        1.5,
        "é",
        b"\x00\xff",
        None,
        True,
        False,
        (),
        (1,),
        (1, 2),
        (1, 2, 3),
        (1, 2, 3, 4),
        {"a": [1, {}]},
        [],
        ["long" * 100] * 2,
    ]
    for protocol in PROTOCOLS:
        came = pickled.read(pickle.dumps(plain, protocol), "it")
        bytes_at = plain.index(b"\x00\xff")
        came[bytes_at] = pickled._bytes(came[bytes_at])
        assert came == plain
        with pytest.raises(DataError, match="EMPTY_SET|no instruction|set"):
            pickled.array(pickled.read(pickle.dumps({1}, protocol), "it"), "it")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b".",
        b"(",
        b"I1\n",
        b"\xff",
        b"]a.",
        b"}s.",
        b"(t",
        b"R.",
        b"h\x05.",
        b"Sabc\n.",
        b"X\xff\xff\xff\x7fab.",
        b"K\x01K\x02R.",
        b"P1\n.",
        b"(I1\nd.",
    ],
)
def test_what_is_damaged(raw):
    with pytest.raises(DataError, match="cannot be read as a pickle"):
        pickled.read(raw, "it")


def test_every_cut_of_a_file_is_refused():
    raw = pickle.dumps(numbers()[1], 2)
    for end in range(len(raw)):
        with pytest.raises(DataError):
            pickled.array(pickled.read(raw[:end], "it"), "it")
    assert pickletools.optimize(raw)


def test_sizes_that_no_memory_holds():
    huge = sparse.csr_matrix((2**20, 2**20), dtype=np.float32)
    with pytest.raises(DataError, match="shape"):
        pickled.array(pickled.read(pickle.dumps(huge, 2), "it"), "it")


@pytest.mark.parametrize("name", ["indices", "indptr", "data"])
def test_sparse_rows_that_do_not_fit(name):
    matrix = sparse.csr_matrix(numbers()[0])
    setattr(matrix, name, getattr(matrix, name)[:-1])
    with pytest.raises(DataError, match="do not fit"):
        pickled.array(pickled.read(pickle.dumps(matrix, 2), "it"), "it")
    matrix = sparse.csr_matrix(numbers()[0])
    matrix.indices[0] = -1
    with pytest.raises(DataError, match="columns"):
        pickled.array(pickled.read(pickle.dumps(matrix, 2), "it"), "it")


# Folders that do not fit.


def test_no_folder_is_said():
    with pytest.raises(DataError, match="no folder was named"):
        tasks.build("citations")
    with pytest.raises(DataError, match=r"ind\.cora\.x cannot be read \(No such file"):
        tasks.build("citations", {"folder": "/nonexistent"})


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"tx": numbers()[0][:3]}, "do not fit together"),
        ({"x": numbers()[0][:4, :2]}, "do not fit together"),
        ({"y": numbers()[1][:4, 0]}, "do not fit together"),
        ({"ally": numbers()[1][:5]}, "do not fit together"),
        ({"graph": {0: [99]}}, "names paper 99, and there are 12"),
        ({"graph": {0: 5}}, "no neighbours by paper"),
        ({"graph": [1, 2]}, "no neighbours by paper"),
        ({"x": "text"}, "no array of numbers"),
        ({"x": b"\x80"}, "cannot be read as a pickle"),
        ({"shuffled": (9, 8, 8, 10)}, "do not fit together"),
        ({"shuffled": (9, 10, 11)}, "must be number 8"),
    ],
)
def test_files_that_do_not_fit(tmp_path, changed, says):
    write(tmp_path, **changed)
    with pytest.raises(DataError, match=says):
        citations.read_planetoid(tmp_path, "tiny")


def test_an_index_without_numbers(tmp_path):
    write(tmp_path)
    (tmp_path / "ind.tiny.test.index").write_text("eight\n")
    with pytest.raises(DataError, match="no numbers of papers"):
        citations.read_planetoid(tmp_path, "tiny")


# Arrays in one file.

ARRAYS = {
    "x": np.eye(4, dtype=np.float32),
    "edge_index": np.array([[0, 1, 2], [1, 2, 3]]),
    "y": np.array([0, 1, 0, 1]),
    "train": np.array([0, 1]),
    "validation": np.array([2]),
    "test": np.array([3]),
}


def test_arrays_in_one_file(tmp_path):
    np.savez(tmp_path / "mine.npz", **ARRAYS)
    task = tasks.build("citations", {"folder": str(tmp_path), "dataset": "mine"})
    assert torch.equal(task.graph.x, torch.eye(4))
    assert task.graph.edge_index.tolist() == ARRAYS["edge_index"].tolist()
    assert task.graph.split["test"].tolist() == [3]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"y": np.array([0, 1, 0])}, "fit, the last two"),
        ({"edge_index": np.array([[0.5], [1.0]])}, "whole numbers"),
        ({"edge_index": np.array([[0], [4]])}, "edge_index names nodes beyond the 4"),
        ({"train": np.array([-1])}, "train names nodes beyond"),
        ({"train": np.array([0, 3])}, "share none"),
        ({"test": np.array([], np.int64)}, "must each hold nodes"),
        ({"x": np.full((4, 2), np.nan)}, "finite"),
        ({"y": np.array([0, 1, 0, -1])}, "count from zero"),
        ({"x": np.array([[Harmful("trap")]], dtype=object)}, "cannot be read as arrays"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, changed, says):
    np.savez(tmp_path / "mine.npz", allow_pickle=True, **(ARRAYS | changed))
    with pytest.raises(DataError, match=says):
        citations.read_npz(tmp_path / "mine.npz")


def test_an_array_that_is_missing(tmp_path):
    np.savez(tmp_path / "mine.npz", x=ARRAYS["x"])
    with pytest.raises(DataError, match="lacks the arrays"):
        citations.read_npz(tmp_path / "mine.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="cannot be read as arrays"):
        citations.read_npz(tmp_path / "bad.npz")

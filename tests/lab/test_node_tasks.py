"""Routes: a real graph whose nodes are split for good, and what is said where it is missing."""

from __future__ import annotations

import gzip
import sys

import pytest
import torch

from ogive.errors import DataError, UnknownName
from ogive.lab import tasks
from ogive.lab.tasks import files, routes
from ogive.lab.train import train
from ogive.models import GraphNetwork

AIRPORTS = (
    "AirportID,IATA,Longitude,Altitude,Type\n7,AAA,-120.5,1000,large_airport\n"
    "8,BBB,-99,0,medium_airport\n9,CCC,145.7,-10,small_airport\n5,DDD,-70,20,medium_airport\n"
)
FLIGHTS = "Airline,SourceID,DestinationID\nXX,7,8\nXX,8,7\nYY,7,8\nYY,9,8\n"


@pytest.fixture(scope="module")
def task():
    return tasks.build("routes")


def read(tmp_path, monkeypatch, airports=AIRPORTS, flights=FLIGHTS):
    (tmp_path / "airports.csv").write_text(airports)
    (tmp_path / "routes.csv.gz").write_bytes(gzip.compress(flights.encode()))
    monkeypatch.setattr(routes, "packaged", lambda *inside, needs: tmp_path / inside[-1])
    return routes.read_graph()


def test_the_graph_is_read_as_the_tables_say(tmp_path, monkeypatch):
    graph = read(tmp_path, monkeypatch)
    assert graph.names == ("AAA", "BBB", "CCC")  # DDD is served by nobody
    assert graph.edge_index.T.tolist() == [[0, 1], [1, 0], [2, 1]]  # two airlines are one edge
    assert graph.answers.tolist() == [0, 2, 0]  # Guam is in the far west
    shares = torch.tensor([[2 / 3, 1 / 3], [0.5, 0.5], [0, 1]])
    torch.testing.assert_close(graph.x[:, :2], shares)
    torch.testing.assert_close(graph.x[:, 2], torch.tensor([1.0, 1, 1]).log1p())
    torch.testing.assert_close(graph.x[:, 3], torch.tensor([0.3048, 0, -0.003048]))
    assert graph.x[:, 4].tolist() == [1, 0, 0]
    assert sorted(torch.cat(list(graph.split.values())).tolist()) == [0, 1, 2]


def test_the_real_graph(task):
    graph = task.graph
    assert len(graph.x) == len(graph.answers) == len(graph.names) == 352
    assert graph.edge_index.shape == (2, 6022)
    assert len(graph.edge_index.unique(dim=1).T) == 6022
    assert not (graph.edge_index[0] == graph.edge_index[1]).any()
    assert graph.x.isfinite().all()
    assert [len(nodes) for nodes in graph.split.values()] == [141, 70, 141]
    every = torch.cat(list(graph.split.values()))
    assert torch.equal(every.sort().values, torch.arange(352))
    assert torch.bincount(graph.answers).min() > 50


def test_an_airport_shows_nothing_of_where_it_lies(tmp_path, monkeypatch):
    """Moving an airport changes its answer and not one feature."""
    before = read(tmp_path, monkeypatch)
    after = read(tmp_path, monkeypatch, AIRPORTS.replace("-120.5", "-80"))
    assert torch.equal(before.x, after.x)
    assert (before.answers != after.answers).tolist() == [True, False, False]


def test_answers_of_other_nodes_are_never_asked_in_training(task):
    train_nodes = set(task.graph.split["train"].tolist())
    for step in range(20):
        batch = task.batch(0, step, 64)
        assert set(batch.tokens.flatten().tolist()) <= train_nodes
        assert torch.equal(batch.targets, task.graph.answers[batch.tokens])
    for scored in ("test", "validation"):
        (batch,) = tasks.build("routes", {"scored": scored}).held_out()
        assert torch.equal(batch.tokens[:, 0], task.graph.split[scored])


def test_a_model_learns_from_the_neighbours():
    """More than half of the bands, and fewer where nodes do not see each other."""
    task, scores = tasks.build("routes"), []
    for depth in (2, 0):
        config = {
            "task": {"name": "routes", "options": {}},
            "sites": "score=gatv2",
            "model": {**task.default_model, "depth": depth},
            "train": {**task.default_train, "steps": 60, "evaluations": 1},
            "seed": 0,
        }
        scores.append(train(config)["score"])
    assert scores[0] > 0.65
    assert scores[0] > scores[1] + 0.05


def test_the_score_is_the_share_that_is_right(task):
    class Knows(torch.nn.Module):
        def forward(self, x, edges):
            return torch.nn.functional.one_hot(task.graph.answers, 4).float()

    class GuessesOne(torch.nn.Module):
        def forward(self, x, edges):
            return torch.tensor([0.0, 0, 1, 0]).expand(len(x), 4)

    assert task.evaluate(Knows()) == 1
    asked = task.graph.answers[task.graph.split["test"]]
    assert task.evaluate(GuessesOne()) == pytest.approx(float((asked == 2).float().mean()))


def test_the_model_is_a_graph_network(task):
    model = task.model(task.default_model, "score=gat")
    assert isinstance(model, GraphNetwork)
    assert model(*task.example()).shape == (352, 4)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "bokeh_sampledata", None)
    with pytest.raises(DataError, match=r"bokeh_sampledata.*pip install 'ogive\[data\]'"):
        tasks.build("routes")


def test_options_that_do_not_fit():
    with pytest.raises(UnknownName, match="routes option scored 'train'.*validation"):
        tasks.build("routes", {"scored": "train"})


@pytest.mark.parametrize(
    "tables",
    [
        {"airports": "a,b\n1,2\n"},
        {"airports": AIRPORTS.replace("-120.5", "west")},
        {"airports": AIRPORTS.replace(",1000,", ",nan,")},
        {"flights": "Airline,SourceID\nXX,7\n"},
        {"flights": FLIGHTS + "XX,7,77\n"},
        {"flights": "Airline,SourceID,DestinationID\n"},
    ],
)
def test_tables_that_are_damaged(tables, tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot be read as the graph of US air routes"):
        read(tmp_path, monkeypatch, **tables)
    assert files.packaged("bokeh_sampledata", "airports.py", needs="x").is_file()


def test_a_file_that_is_cut_off(tmp_path, monkeypatch):
    read(tmp_path, monkeypatch)
    whole = (tmp_path / "routes.csv.gz").read_bytes()
    (tmp_path / "routes.csv.gz").write_bytes(whole[:-9])
    with pytest.raises(DataError, match="cannot be read as the graph of US air routes"):
        routes.read_graph()

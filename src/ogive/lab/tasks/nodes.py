"""NodeTask: what tasks on one graph share. Some nodes' classes are known; the others are asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ogive.errors import unknown
from ogive.kernels import EdgeList
from ogive.lab.keys import stream
from ogive.lab.tasks.task import Accuracy, Batch, Task

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Graph:
    """A graph whose nodes have classes.

    Attributes:
        x: (nodes, features) float32.
        edge_index: (2, edges) int64, row 0 sources and row 1 targets.
        answers: (nodes,) int64, the class of each.
        split: the numbers of the nodes to train, validate and test on, by these names.
        names: of the nodes, for people; empty where they have none.
    """

    x: Tensor
    edge_index: Tensor
    answers: Tensor
    split: dict[str, Tensor]
    names: tuple[str, ...] = ()


class NodeTask(Accuracy, Task):
    """Base of tasks on one graph, which a model sees whole: only the answers are held out.

    A batch is some of the nodes to train on, as sequences of one token, the node's number.
    """

    family = "graph"

    def __init__(self, graph: Graph, scored: str) -> None:
        if scored not in SPLITS[1:]:
            raise unknown(f"{self.name} option scored", str(scored), SPLITS[1:])
        self.scored, self.graph = scored, graph
        self.vocabulary, self.length = len(graph.x), 1
        self.answers = int(graph.answers.max()) + 1
        self.edges = EdgeList.build(graph.edge_index, len(graph.x))

    def batch(self, seed: int, step: int, size: int) -> Batch:
        nodes = self.graph.split["train"]
        picks = torch.randint(len(nodes), (size,), generator=stream(self.name, seed, step))
        return self._asked(nodes[picks])

    def held_out(self) -> Iterator[Batch]:
        yield self._asked(self.graph.split[self.scored])

    def _asked(self, nodes: Tensor) -> Batch:
        return Batch(nodes[:, None], self.graph.answers[nodes, None])

    def given(self) -> dict[str, Any]:
        return {"features": self.graph.x.shape[1], "classes": self.answers}

    def example(self) -> tuple[Any, ...]:
        return self.graph.x, self.edges

    def logits(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        return model(self.graph.x, self.edges)[batch.tokens[:, 0]], batch.targets[:, 0]

    def _shown(self) -> Iterator[Tensor | None]:
        yield from (self.graph.x, self.graph.edge_index)
        yield from super()._shown()

"""A model of PyTorch Geometric, and another activation in the score of its attention.

    python examples/pyg_score.py

Which part of the country is an airport in? Two layers of PyG's GATv2Conv learn it from the graph of
US flights. Then Ogive's AttentionConv takes their places: with the same weights it gives the same
numbers, and with another score the model is trained anew. Needs ogive[graph,data].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.data import Data
from torch_geometric.nn import GATv2Conv, Sequential

from ogive.integrations.torch_geometric import AttentionConv, from_pyg
from ogive.lab.tasks.routes import read_graph

WIDTH, HEADS, EPOCHS = 32, 4, 120


def airports() -> Data:
    """The graph as PyG holds graphs."""
    graph = read_graph()
    data = Data(x=graph.x, edge_index=graph.edge_index, y=graph.answers)
    for name, nodes in graph.split.items():
        data[name] = nodes
    return data


def model_of(first: nn.Module, second: nn.Module) -> nn.Module:
    layers = [
        (first, "x, edge_index -> x"),
        nn.ELU(),
        nn.Dropout(0.3),
        (second, "x, edge_index -> x"),
    ]
    return Sequential("x, edge_index", layers)


def pyg_model(data: Data) -> nn.Module:
    return model_of(
        GATv2Conv(data.num_features, WIDTH // HEADS, heads=HEADS),
        GATv2Conv(WIDTH, int(data.y.max()) + 1, heads=HEADS, concat=False),
    )


def ogive_model(data: Data, sites: str) -> nn.Module:
    return model_of(
        AttentionConv(data.num_features, WIDTH // HEADS, HEADS, sites=sites),
        AttentionConv(WIDTH, int(data.y.max()) + 1, HEADS, concat=False, sites=sites),
    )


def train(model: nn.Module, data: Data) -> float:
    """The share of test airports that are right after training."""
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=1e-2)
    model.train()
    for _ in range(EPOCHS):
        answers: Tensor = model(data.x, data.edge_index)[data.train]
        loss = nn.functional.cross_entropy(answers, data.y[data.train])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.eval()
    with torch.no_grad():
        told = model(data.x, data.edge_index).argmax(-1)
    return float((told == data.y)[data.test].float().mean())


def main() -> None:
    data = airports()
    print(f"{data.num_nodes} airports, {data.num_edges} flights between two of them")
    torch.manual_seed(0)
    theirs = pyg_model(data)
    print(f"PyG's GATv2Conv                          {train(theirs, data):6.1%} right")

    plain = "score=gatv2 output=identity"
    ours = ogive_model(data, plain).eval()
    for mine, his in zip(ours.children(), theirs.children(), strict=True):
        if isinstance(mine, AttentionConv):
            mine.attention.load_state_dict(from_pyg(his).state_dict())
    with torch.no_grad():
        off = float((ours(data.x, data.edge_index) - theirs(data.x, data.edge_index)).abs().max())
    print(f"  the same weights in Ogive              {off:.0e} apart")
    assert off < 1e-4

    for sites in (plain, "score=gatv2(tanh) output=identity", "score=gatv2(silu) output=identity"):
        torch.manual_seed(0)
        right = train(ogive_model(data, sites), data)
        print(f"Ogive, {sites:<34}{right:6.1%} right")


if __name__ == "__main__":
    main()

"""How far from their peers are the layers that take a peer's weights, in values and gradients?

    python benchmarks/parity.py

For each peer one layer with random weights is bridged, and both are called on the same inputs. An
error is the largest difference over the largest number of the peer's output, or over that of all
its gradients together: of the inputs and of every parameter. Peers that are not installed are left
out and named. Keras' layers are compared in tests/integrations, with numbers that
scripts/keras_cases.py stored.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from harness import save  # noqa: E402

import ogive  # noqa: E402
from ogive.integrations import torch_nn, x_transformers  # noqa: E402
from ogive.integrations.state_dicts import Heads  # noqa: E402

WIDTH, HEADS = 64, 4


class Pair(NamedTuple):
    """Two functions of the same inputs, and what their gradients are taken of."""

    theirs: Callable[..., Tensor]
    ours: Callable[..., Tensor]
    inputs: list[Tensor]
    their_parameters: dict[str, Tensor]
    our_parameters: dict[str, Tensor]
    """Those of ours under the peer's names, or bridged ones under ours."""
    translated: Callable[[dict[str, Tensor]], dict[str, Tensor]] = lambda grads: grads


def drawn(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    """Normal numbers, the same in every dtype but for rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def shaken(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The module with every parameter drawn anew, so that no zero hides a mistake."""
    module = module.to(dtype).eval()
    with torch.no_grad():
        for at, parameter in enumerate(module.parameters()):
            parameter.copy_(0.2 * drawn(*parameter.shape, dtype=dtype, seed=100 + at))
    return module


# --- peers: name, setting, pair -------------------------------------------------------------------


def operations(dtype: torch.dtype) -> Iterator[tuple[str, str, Pair]]:
    """F.scaled_dot_product_attention, plain and with what it takes."""
    query, key, value = (drawn(2, HEADS, 50, 16, dtype=dtype, seed=at) for at in range(3))
    mask = torch.rand(50, 50, generator=torch.Generator().manual_seed(9)) < 0.7
    settings: dict[str, dict[str, Any]] = {
        "plain": {},
        "is_causal": {"is_causal": True},
        "attn_mask": {"attn_mask": mask},
        "scale": {"scale": 0.3},
    }
    for setting, options in settings.items():
        yield (
            "F.scaled_dot_product_attention",
            setting,
            Pair(
                lambda q, k, v, o=options: F.scaled_dot_product_attention(q, k, v, **o),
                lambda q, k, v, o=options: ogive.attention(q, k, v, **o),
                [query, key, value],
                {},
                {},
            ),
        )


def entmax_package(dtype: torch.dtype) -> Iterator[tuple[str, str, Pair]]:
    """sparsemax and entmax15 of the entmax package, as the weights of attention."""
    import entmax

    query, key, value = (drawn(2, HEADS, 50, 16, dtype=dtype, seed=at) for at in range(3))
    for name in ("sparsemax", "entmax15"):
        theirs = getattr(entmax, name)
        yield (
            "entmax",
            name,
            Pair(
                lambda q, k, v, f=theirs: f(q @ k.mT / 4, dim=-1) @ v,
                lambda q, k, v, n=name: ogive.attention(q, k, v, weight=n),
                [query, key, value],
                {},
                {},
            ),
        )


def torch_layer(dtype: torch.dtype) -> Iterator[tuple[str, str, Pair]]:
    """torch.nn.MultiheadAttention, into the drop-in layer and into Attention."""
    x = drawn(2, 20, WIDTH, dtype=dtype, seed=1)
    padded = torch.arange(20) >= torch.tensor([[20], [13]])
    for setting, options in {
        "plain": {},
        "bias_kv, zero_attn": {"add_bias_kv": True, "add_zero_attn": True},
    }.items():
        theirs = shaken(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options), dtype)
        ours = ogive.MultiheadAttention(WIDTH, HEADS, batch_first=True, **options).to(dtype).eval()
        ours.load_state_dict(theirs.state_dict())
        yield (
            "torch.nn.MultiheadAttention → ogive.MultiheadAttention",
            f"padding, {setting}",
            Pair(
                lambda x, m=theirs: m(x, x, x, key_padding_mask=padded)[0],
                lambda x, m=ours: m(x, x, x, key_padding_mask=padded)[0],
                [x],
                dict(theirs.named_parameters()),
                dict(ours.named_parameters()),
            ),
        )
    theirs = shaken(nn.MultiheadAttention(WIDTH, HEADS, batch_first=True), dtype)
    layer = torch_nn.from_torch(theirs)
    yield (
        "torch.nn.MultiheadAttention → ogive.Attention",
        "padding",
        Pair(
            lambda x: theirs(x, x, x, key_padding_mask=padded)[0],
            lambda x: layer(x, key_mask=~padded),
            [x],
            dict(theirs.named_parameters()),
            dict(layer.named_parameters()),
            lambda grads: torch_nn.PACKED.read(grads, Heads(HEADS, HEADS)),
        ),
    )


def x_transformers_layer(dtype: torch.dtype) -> Iterator[tuple[str, str, Pair]]:
    """Attention of x-transformers, which computes its softmax in float32 whatever comes."""
    from x_transformers.x_transformers import Attention

    x = drawn(2, 20, WIDTH, dtype=dtype, seed=1)
    for setting, options in {
        "causal, kv_heads": {"causal": True, "kv_heads": 2},
        "sigmoid": {"sigmoid": True},
        "gate_values": {"gate_values": True},
    }.items():
        theirs = shaken(Attention(WIDTH, dim_head=16, heads=HEADS, **options), dtype)
        layer, call = x_transformers.from_x_transformers(theirs)
        heads = Heads(layer.heads, layer.kv_heads)
        yield (
            "x_transformers.Attention",
            setting,
            Pair(
                lambda x, m=theirs: m(x),
                lambda x, m=layer, c=call: m(x, **c),
                [x],
                dict(theirs.named_parameters()),
                dict(layer.named_parameters()),
                lambda grads, h=heads: x_transformers.BRIDGE.read(grads, h),
            ),
        )


def complete_graphs(dtype: torch.dtype) -> Iterator[tuple[str, str, Pair]]:
    """Our dense layer, and the same parameters over the edges of a complete graph."""
    x = drawn(20, WIDTH, dtype=dtype, seed=1)
    edge_index = torch.cartesian_prod(torch.arange(20), torch.arange(20)).T
    for score in ("dot", "gat", "gatv2", "additive(tanh)"):
        sites = f"score={score} mixed=elu"
        dense = shaken(ogive.Attention(WIDTH, HEADS, sites=sites), dtype)
        edges = ogive.GraphAttention(WIDTH, HEADS, out_width=WIDTH, sites=sites).to(dtype).eval()
        edges.load_state_dict(dense.state_dict())
        yield (
            "ogive.Attention → ogive.GraphAttention, complete graph",
            score,
            Pair(
                lambda x, m=dense: m(x[None])[0],
                lambda x, m=edges: m(x, edge_index),
                [x],
                dict(dense.named_parameters()),
                dict(edges.named_parameters()),
            ),
        )


def graph_layers(dtype: torch.dtype) -> Iterator[tuple[str, str, Pair]]:
    """The attention layers of PyTorch Geometric, with features of edges where it says so."""
    from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv

    from ogive.integrations import graph_tables
    from ogive.integrations.torch_geometric import from_pyg

    draw = torch.Generator().manual_seed(9)
    edge_index = torch.randint(30, (2, 150), generator=draw)
    x = drawn(30, WIDTH, dtype=dtype, seed=1)
    settings = {"self loops": {}, "mean of heads, features of edges": {"concat": False}}
    for kind, bridge in (
        (GATConv, graph_tables.PYG_GAT),
        (GATv2Conv, graph_tables.PYG_GATV2),
        (TransformerConv, graph_tables.PYG_TRANSFORMER),
    ):
        for setting, options in settings.items():
            more = [drawn(150, 3, dtype=dtype, seed=2)] if options else []
            width = {"edge_dim": 3} if options else {}
            conv = kind(WIDTH, WIDTH // HEADS, heads=HEADS, **options, **width)
            theirs = shaken(conv, dtype)
            layer = from_pyg(theirs)
            yield (
                f"torch_geometric.nn.{kind.__name__}",
                setting if kind is not TransformerConv else setting.replace("self loops", "plain"),
                Pair(
                    lambda x, *e, m=theirs: m(x, edge_index, *e),
                    lambda x, *e, m=layer: m(x, edge_index, *e),
                    [x, *more],
                    dict(theirs.named_parameters()),
                    dict(layer.named_parameters()),
                    lambda grads, b=bridge: b.read(grads, Heads(HEADS, HEADS)),
                ),
            )


PEERS = {
    "torch": (operations, torch_layer, complete_graphs),
    "torch_geometric": (graph_layers,),
    "x_transformers": (x_transformers_layer,),
    "entmax": (entmax_package,),
}
"""Package → what is compared where it is installed."""


# --- errors ---------------------------------------------------------------------------------------


def apart(came: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest difference, over the largest number that is wanted."""
    gaps = [(a - b).abs().max().item() for a, b in zip(came, wanted, strict=True)]
    return max(gaps) / max(b.abs().max().item() for b in wanted)


def errors(pair: Pair) -> dict[str, float]:
    """Of the output, and of the gradients of inputs and parameters."""
    wanted, came = pair.theirs(*pair.inputs), pair.ours(*pair.inputs)
    slope = drawn(*wanted.shape, dtype=wanted.dtype, seed=77).detach()
    theirs = torch.autograd.grad(wanted, [*pair.inputs, *pair.their_parameters.values()], slope)
    ours = torch.autograd.grad(came, [*pair.inputs, *pair.our_parameters.values()], slope)
    many = len(pair.inputs)
    their_grads = pair.translated(dict(zip(pair.their_parameters, theirs[many:], strict=True)))
    our_grads = dict(zip(pair.our_parameters, ours[many:], strict=True))
    return {
        "output": apart([came.detach()], [wanted.detach()]),
        "gradients": apart(
            [*ours[:many], *(our_grads[name] for name in their_grads)],
            [*theirs[:many], *their_grads.values()],
        ),
    }


def rows() -> list[dict[str, str]]:
    """A row for each peer and setting."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for package, comparisons in PEERS.items():
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed: left out")
            continue
        for compare in comparisons:
            for dtype in (torch.float32, torch.float64):
                for peer, setting, pair in compare(dtype):
                    row = found.setdefault((peer, setting), {"peer": peer, "setting": setting})
                    for what, size in errors(pair).items():
                        row[f"{what}, {str(dtype).removeprefix('torch.')}"] = f"{size:.1e}"
    return list(found.values())


def main() -> None:
    """Print the table and keep it."""
    torch.set_num_threads(1)
    kept = rows()
    print(f"| {' | '.join(kept[0])} |\n|{'---|' * len(kept[0])}")
    for row in kept:
        print(f"| {' | '.join(row.values())} |")
    save(HERE / "results" / "parity.json", kept)


if __name__ == "__main__":
    main()

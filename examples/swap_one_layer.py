"""One line changes in a plain PyTorch model: its attention becomes Ogive's, weights and all.

    python examples/swap_one_layer.py

The model is trained with `torch.nn.MultiheadAttention`. Then its attention is exchanged for
`ogive.MultiheadAttention`, which loads the same state dict: with every site at its default it gives
the same numbers, and with another weight function it is trained on a little further.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ogive import MultiheadAttention

WORDS, LENGTH, WIDTH, HEADS = 12, 9, 32, 4


class Majority(nn.Module):
    """Which of the words comes most often? A query of its own attends to the sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.query = nn.Parameter(torch.randn(1, 1, WIDTH))
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, words: Tensor) -> Tensor:
        x = self.embedding(words)
        query = self.query.expand(len(words), -1, -1)
        return self.head(self.attention(query, x, x, need_weights=False)[0][:, 0])


def sentences(size: int) -> tuple[Tensor, Tensor]:
    answers = torch.randint(WORDS, (size,))
    words = torch.randint(WORDS, (size, LENGTH))
    words[:, : LENGTH // 3] = answers[:, None]
    order = torch.rand(size, LENGTH).argsort(1)
    return words.gather(1, order), answers


def train(model: nn.Module, steps: int) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(steps):
        words, answers = sentences(64)
        loss = nn.functional.cross_entropy(model(words), answers)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


@torch.no_grad()
def share_right(model: nn.Module) -> float:
    words, answers = sentences(1000)
    return float((model(words).argmax(-1) == answers).float().mean())


def main() -> None:
    torch.manual_seed(0)
    model = Majority()
    train(model, 200)
    words, _ = sentences(8)
    before = model(words).detach()
    print(f"torch.nn.MultiheadAttention           {share_right(model):6.1%} right")

    kept = model.attention.state_dict()
    model.attention = MultiheadAttention(WIDTH, HEADS, batch_first=True)
    model.attention.load_state_dict(kept)
    off = float((model(words).detach() - before).abs().max())
    print(f"ogive.MultiheadAttention              {share_right(model):6.1%} right, {off:.0e} apart")
    assert off < 1e-5

    sites = "weight=sigmoid(bias=-log_n)"
    model.attention = MultiheadAttention(WIDTH, HEADS, batch_first=True, sites=sites)
    model.attention.load_state_dict(kept)
    print(f"  {sites}         {share_right(model):6.1%} right as it is")
    train(model, 100)
    print(f"  after 100 more steps                {share_right(model):6.1%} right")


if __name__ == "__main__":
    main()

"""Run by itself, without the shape checks of the tests: compiled models are the models."""

from __future__ import annotations

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "src")]

import torch  # noqa: E402

from integrations import tiny  # noqa: E402
from ogive.integrations import huggingface  # noqa: E402


def check(name: str) -> None:
    """One graph, with padding and without, and the numbers and gradients of plain calls."""
    model = huggingface.use(tiny.model(name), "weight=tanh")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    mask = torch.ones_like(tiny.tokens())
    mask[1, :3] = 0
    for given in ({}, {"attention_mask": mask}):
        found = []
        for called in (model, compiled):
            model.zero_grad()
            logits = called(**tiny.inputs(name), **given).logits
            logits.square().mean().backward()
            found.append([logits, *(p.grad for p in model.parameters())])
        for came, wanted in zip(*reversed(found), strict=True):
            torch.testing.assert_close(came, wanted, rtol=1e-5, atol=1e-5)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        torch.compiler.reset()
        check(name)

"""A GPT with gated attention, trained by two processes that share their gradients.

    torchrun --nproc-per-node 2 examples/gated_gpt.py

Each process reads its own half of every batch of the interpreter's documentation, byte by byte.
Attention's output is gated before the output projection (2505.06708). Without torchrun it runs
alone, on whole batches, and comes to the same model but for rounding.
"""

from __future__ import annotations

import os
import tempfile

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ogive.lab import tasks
from ogive.models import Decoder

STEPS, BATCH = 120, 16


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if world > 1:
        distributed.init_process_group("gloo")
    task = tasks.build("text", {"length": 64, "windows": 256})
    model = Decoder(
        task.vocabulary, width=64, depth=2, heads=4, sites="gated_attention2025_g1", norm="rmsnorm"
    )
    shared: nn.Module = DistributedDataParallel(model) if world > 1 else model
    optimiser = torch.optim.AdamW(model.parameters(), 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, STEPS)
    for step in range(STEPS):
        batch = task.batch(seed=0, step=step, size=BATCH)
        half = slice(rank * BATCH // world, (rank + 1) * BATCH // world)
        logits = shared(batch.tokens[half])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets[half].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if rank == 0 and step % 20 == 19:
            print(f"step {step + 1:4}: {loss.item():.3f} nats per byte", flush=True)
    if rank == 0:
        finish(task, model, world)
    if world > 1:
        distributed.barrier()
        distributed.destroy_process_group()


def finish(task: tasks.Task, model: Decoder, world: int) -> None:
    """Score, save, load and write, in one of the processes."""
    print(
        f"held out, {world} process{'es' * (world > 1)}: {task.evaluate(model):.4f} nats per byte"
    )
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        loaded = Decoder.load(folder)
    start = torch.tensor([list(b"The ")])
    written = loaded.generate(
        start, 60, temperature=0.7, generator=torch.Generator().manual_seed(0)
    )
    print(bytes(written[0].tolist()).decode(errors="replace"))


if __name__ == "__main__":
    main()

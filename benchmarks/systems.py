"""Does every system learn its task? One model of each, trained from nothing, scored on unseen data.

    python benchmarks/systems.py [--quick] [--only TEXT]

These are single models, with no pair and no interval: they show that a system works, not that one
is better than another, which is what `ogive study` is for. One thread each; seconds are of the
processor, scoring included.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from harness import save  # noqa: E402

from ogive.lab import tasks  # noqa: E402
from ogive.lab.train import train  # noqa: E402


class System(NamedTuple):
    """What is trained, by the task's own settings; `options` are the task's."""

    name: str
    task: str
    sites: str
    options: dict[str, Any] | None = None
    seeds: int = 1


SYSTEMS = [
    System("recurrent seq2seq, additive attention", "dates", "score=additive(tanh)", seeds=3),
    System("recurrent seq2seq, scaled dot product", "dates", ""),
    System("recurrent seq2seq, dot product", "dates", "score=unscaled_dot"),
    System("recurrent seq2seq, bilinear", "dates", "score=bilinear"),
    System(
        "encoder-decoder transformer",
        "dates",
        "",
        {"family": "translator"},
    ),
    System("recurrent seq2seq, additive attention", "spelling", "score=additive(tanh)"),
    System("vision transformer", "digits", ""),
    System("graph network, dot product", "routes", ""),
    System("graph network, GAT's score", "routes", "score=gat mixed=elu", seeds=3),
    System("graph network, GATv2's score", "routes", "score=gatv2 mixed=elu", seeds=3),
    System("decoder", "text", ""),
    System("decoder, tanh for softmax", "text", "weight=tanh"),
    System("decoder", "recall", ""),
]


def trained(system: System, seed: int, quick: bool) -> dict[str, Any]:
    """A row: what was trained and how well it did."""
    task = tasks.build(system.task, system.options)
    recipe = task.default_train | (task.quick_train if quick else {})
    config = {
        "task": {"name": system.task, "options": task.options},
        "sites": system.sites,
        "model": task.default_model,
        "train": recipe,
        "seed": seed,
    }
    began = time.process_time()
    result = train(config)
    return {
        "system": system.name,
        "task": system.task,
        "sites": system.sites or "defaults",
        "seed": seed,
        "steps": recipe["steps"],
        "parameters": result["parameters"],
        "metric": result["metric"],
        "score": round(result["score"], 4),
        "seconds": round(time.process_time() - began, 1),
    }


def main() -> None:
    """Train each, print a table, keep a full run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one seed, each task's short training")
    parser.add_argument("--only", default="", help="systems and tasks that hold this text")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[dict[str, Any]] = []
    for system in SYSTEMS:
        if asked.only not in f"{system.name} {system.task} {system.sites}":
            continue
        for seed in range(1 if asked.quick else system.seeds):
            rows.append(trained(system, seed, asked.quick))
            if len(rows) == 1:
                print(f"| {' | '.join(rows[0])} |\n|{'---|' * len(rows[0])}")
            print(f"| {' | '.join(str(value) for value in rows[-1].values())} |", flush=True)
    if not (asked.quick or asked.only):
        save(HERE / "results" / "systems.json", rows)


if __name__ == "__main__":
    main()

"""Draw what additive attention reads of a date, for docs/systems.md: `python docs/draw_date.py`.

Trains the first model of benchmarks/systems.py for that, which takes a minute of one thread.
"""

from __future__ import annotations

from pathlib import Path

import torch

from ogive.lab import tasks
from ogive.lab.train import train
from ogive.report.evidence import Trial
from ogive.report.rows import draw_rows

TARGET = Path(__file__).parent / "images" / "date.svg"
SITES = "score=additive(tanh)"


def main() -> None:
    torch.set_num_threads(1)
    task = tasks.build("dates")
    config = {
        "task": {"name": task.name, "options": task.options},
        "sites": SITES,
        "model": task.default_model,
        "train": task.default_train,
        "seed": 0,
    }
    result = train(config)
    name = "additive attention"
    trial = Trial("", name, "compare", task.name, 0, None, "done", "", config, result)
    TARGET.write_text(draw_rows(trial, key="date", standalone=True).svg)
    print(f"{TARGET}: {task.metric} {result['score']:.4f}")


if __name__ == "__main__":
    main()

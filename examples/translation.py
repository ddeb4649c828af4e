"""Translate dates with additive attention: train, save, load, search with a beam, look at the rows.

    python examples/translation.py

Needs `pip install 'ogive[data]'` for the locales of CLDR. Two recurrent networks with Bahdanau's
attention between them learn to read dates in four languages in well under a minute.
"""

from __future__ import annotations

import tempfile
import time

import torch

from ogive.lab import tasks
from ogive.models import Seq2Seq

LOCALES = ["de", "en", "fr", "ja"]
TEXTS = ["Dienstag, 4. März 2025", "March 4, 2025", "mardi 4 mars 2025", "2025年3月4日火曜日"]
SHADES = " ·:+#█"


def train(task: tasks.Task, steps: int) -> Seq2Seq:
    torch.manual_seed(0)
    model = Seq2Seq(task.vocabulary, task.answers, width=64, sites="score=additive(tanh)")
    optimiser = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 5e-3, steps)
    for step in range(steps):
        loss = task.loss(model, task.batch(seed=0, step=step, size=64))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            print(f"step {step + 1:4}: loss {loss.item():.3f}")
    return model.eval()


def show(task: tasks.Task, model: Seq2Seq, text: str) -> None:
    """Each written character's row of weights over the characters read."""
    source = torch.tensor([task.encode(text)])
    answer = model.generate(source, max_length=task.answer_length, beams=3)
    rows = model.weights(source, model.teacher(answer))[0, 0]
    print(f"\n       {text}")
    for character, row in zip(task.answer_tokens(answer[0].tolist()), rows, strict=False):
        shades = (SHADES[min(int(w * len(SHADES)), len(SHADES) - 1)] for w in row.tolist())
        print(f"  {character}    {''.join(shades)}")


def main() -> None:
    task = tasks.build("dates", {"locales": LOCALES, "sequences": 500})
    began = time.perf_counter()
    model = train(task, 250)
    print(f"{task.evaluate(model):.1%} of dates it never saw are right as a whole")
    print(f"({time.perf_counter() - began:.0f} s)")
    with tempfile.TemporaryDirectory() as folder:
        model.save(folder)
        model = Seq2Seq.load(folder)
    for text in TEXTS:
        answer = model.generate(torch.tensor([task.encode(text)]), task.answer_length, beams=3)
        print(f"{text:28} {''.join(task.answer_tokens(answer[0].tolist()))}")
    show(task, model, TEXTS[0])


if __name__ == "__main__":
    main()

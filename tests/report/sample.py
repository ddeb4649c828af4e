"""A made-up study with rows shaped as the store gives them, and the lab's own comparisons."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from ogive.lab import compare
from ogive.lab.store import Row

EFFECTS = {
    "relu on query": 0.004,
    "gelu on query": -0.001,
    "relu on key": 0.012,
    "gelu on key": 0.0,
    "relu on value": -0.021,
    "gelu on value": -0.031,
    "sigmoid gate on mixed": -0.047,
    "rmsnorm on value": -0.016,
    "scale on value": 0.001,
    "constant gate on value": 0.028,
}
SITES = {
    "relu on query": "query=relu",
    "gelu on query": "query=gelu",
    "relu on key": "key=relu",
    "gelu on key": "key=gelu",
    "relu on value": "value=relu",
    "gelu on value": "value=gelu",
    "sigmoid gate on mixed": "mixed=gate(sigmoid)",
    "rmsnorm on value": "value=rmsnorm",
    "scale on value": "value=scale",
    "constant gate on value": "value=constant_gate",
}
CONTROLS = ("rmsnorm on value", "scale on value", "constant gate on value")
RATES = (1e-3, 3e-3, 1e-2)
ENVIRONMENT = {
    "ogive": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0",
    "system": "Linux",
    "machine": "x86_64",
    "processor": "an ordinary processor",
    "vectors": "AVX2",
    "kernels": "avx2",
    "threads": 1,
}
TASKS = {"text": ("nats per byte", False), "recall": ("accuracy", True)}


def spec(variants=EFFECTS, tasks=("text",), **changes):
    """The study as plain values, as `Study.spec()` writes it."""
    controls = [label for label in CONTROLS if label in variants]
    plain = {
        "name": "demo",
        "tasks": list(tasks),
        "controls": controls,
        "question": "Does an activation after the query, key or value projection help?",
        "baseline": {"sites": "", "model": {}, "train": {}},
        "variants": {
            label: {"sites": SITES.get(label, "query=gelu"), "model": {}, "train": {}}
            for label in variants
        },
        "margin": dict.fromkeys(tasks, 0.01),
        "seeds": 6,
        "tuning_seeds": 1,
        "learning_rates": list(RATES),
        "extra_rungs": 1,
        "match": "parameters",
        "model": {"width": 64, "depth": 2, "heads": 4},
        "train": {"steps": 400, "batch": 16},
        "task_options": {task: {} for task in tasks},
        "quick": False,
        "plugins": [],
    }
    return plain | changes


def row(
    study="demo",
    variant="baseline",
    role="compare",
    seed=0,
    lr=3e-3,
    state="done",
    result=None,
    reason=None,
    task="text",
    position=0,
    **config,
):
    """One row of the store."""
    config = {
        "task": {"name": task, "version": "5f0c7d1e9a3b2468", "options": {}},
        "sites": SITES.get(variant, ""),
        "model": {"width": 64, "depth": 2, "heads": 4, "hidden": 256},
        "train": {"steps": 400, "batch": 16, "lr": lr},
        "seed": seed,
        "code": "9a1b2c3d4e5f6071",
    } | config
    digest = hashlib.sha256(json.dumps([variant, config], sort_keys=True).encode()).hexdigest()
    return Row(
        study=study,
        variant=variant,
        role=role,
        position=position,
        id=digest[:16],
        config=config,
        state=state,
        reason=reason,
        result=result,
        deaths=0,
        created=0.0,
        started=0.0,
        finished=1.0,
    )


def result(score, *, task="text", seed=0, points=40, cost=1.0, parameters=115_776, **changes):
    """What a finished trial leaves."""
    metric, higher = TASKS.get(task, ("units", False))
    noise = np.random.default_rng(seed)
    steps = [round(400 * (at + 1) / points) for at in range(points)]
    held = {steps[points * k // 4 - 1]: k for k in (1, 2, 3, 4)} if points >= 4 else {}
    curve = [
        [
            step,
            score + 3.2 * float(np.exp(-step / 60)) + 0.01 * float(noise.normal()),
            score + (4 - held[step]) * 0.12 if step in held else None,
        ]
        for step in steps
    ]
    return {
        "score": score,
        "metric": metric,
        "unit": metric,
        "higher_is_better": higher,
        "curve": curve,
        "parameters": parameters,
        "flops_per_token": 2 * parameters,
        "step_ms": 23.0 * cost * (1 + 0.02 * float(noise.normal())),
        "seconds": 9.3,
        "environment": ENVIRONMENT,
        "diverged": False,
    } | changes


def rows(variants=EFFECTS, seeds=6, tasks=("text",), tuning=True, points=40):
    """Rows of a finished study whose variants differ from the baseline by their effects."""
    draw, found = np.random.default_rng(7), []
    for task in tasks:
        sign, start = (-4.0, 0.8) if TASKS.get(task, ("", False))[1] else (1.0, 2.41)
        luck = 0.009 * draw.normal(size=seeds)
        for label, effect in {"baseline": 0.0, **variants}.items():
            hard = 0.013 if label in ("relu on query", "relu on key", "rmsnorm on value") else 0.004
            if tuning:
                for at, lr in enumerate(RATES):
                    score = start + sign * (effect + 0.05 * abs(at - 1 - (label == "relu on key")))
                    found.append(
                        row(
                            variant=label,
                            role="tune",
                            seed=1_000_000,
                            lr=lr,
                            task=task,
                            result=result(score, task=task, points=4),
                        )
                    )
            for seed in range(seeds):
                score = start + luck[seed] + sign * (effect + hard * draw.normal())
                cost = {"sigmoid gate on mixed": 1.14}.get(label, 1.0 + abs(effect))
                lr = 1e-2 if label == "relu on key" else 3e-3
                found.append(
                    row(
                        variant=label,
                        seed=seed,
                        lr=lr,
                        task=task,
                        result=result(score, task=task, seed=seed, cost=cost, points=points),
                    )
                )
    return found


def plan(variants=EFFECTS, tasks=("text",)):
    """The plan as the store keeps it, with a receipt per arm."""
    receipt = {
        "mode": "parameters",
        "target": 115_776,
        "reached": 115_776,
        "difference": 0.0,
        "hidden": 256,
        "hidden_before": 256,
        "parameters": 115_776,
        "flops_per_token": 231_552,
        "model": {},
    }
    gate = receipt | {"reached": 115_840, "difference": 64 / 115_776, "hidden": 224}
    return {
        "code": "9a1b2c3d4e5f6071",
        "tasks": {},
        "arms": {
            task: {
                label: {
                    "sites": SITES.get(label, ""),
                    "model": {},
                    "train": {},
                    "receipt": gate if "gate(" in SITES.get(label, "") else receipt,
                }
                for label in ("baseline", *variants)
            }
            for task in tasks
        },
    }


def study(**changes):
    """(spec, rows, comparisons) of the finished study."""
    declared, found = spec(**changes), rows(tasks=changes.get("tasks", ("text",)))
    return declared, found, compare(declared, found)

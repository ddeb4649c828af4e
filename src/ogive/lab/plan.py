"""The plan of a study: canonical sites, data versions and matched budgets, before trials begin.

This runs in a process of its own, because it needs torch and the run that asks for it does not.
"""

from __future__ import annotations

import importlib
import runpy
from collections.abc import Sequence
from typing import Any

from ogive.errors import OgiveError, StudyError
from ogive.lab.identity import canonical, code_fingerprint
from ogive.lab.study import BASELINE


def make_plan(spec: dict[str, Any]) -> dict[str, Any]:
    """Work out what each arm of a study trains.

    Args:
        spec: the study (`Study.spec`).

    Returns:
        {"code": fingerprint of the sources,
        "ladder": {"rates", "seeds", "extra"},
        "tasks": {task: {"name", "version", "options"}},
        "arms": {task: {label: {"sites", "model", "train", "receipt"}}}}, the baseline first.

    Raises:
        OgiveError: an unknown task, option, setting or part, data that cannot be used, a budget
            that cannot be met; the message names the arm.
    """
    load_plugins(spec["plugins"])
    from ogive.lab.tasks import build

    tasks, arms = {}, {}
    for name in spec["tasks"]:
        task = build(name, spec["task_options"][name])
        tasks[name] = {"name": name, "version": task.version(), "options": task.options}
        arms[name] = _arms(spec, task, tasks[name]["options"])
    return {
        "code": code_fingerprint(spec["plugins"]),
        "ladder": {
            "rates": spec["learning_rates"],
            "seeds": spec["tuning_seeds"],
            "extra": spec["extra_rungs"],
        },
        "tasks": tasks,
        "arms": arms,
    }


def load_plugins(names: Sequence[str]) -> None:
    """Import the modules, or run the files, that define a study's own parts and tasks."""
    for name in names:
        try:
            if name.endswith(".py"):
                _KEPT.append(runpy.run_path(name))
            else:
                importlib.import_module(name)
        except (Exception, SystemExit) as error:
            raise StudyError(f"plugin {name!r}: {type(error).__name__}: {error}") from error


_KEPT: list[dict[str, Any]] = []  # a family is found by walking it, so its members must stay


def _arms(spec: dict[str, Any], task: Any, options: dict[str, Any]) -> dict[str, Any]:
    planned: dict[str, Any] = {}
    for label, arm in {BASELINE: spec["baseline"], **spec["variants"]}.items():
        try:
            planned[label] = _arm(spec, task, options, arm)
        except OgiveError as error:
            raise type(error)(f"{label!r} on {task.name}: {error}") from error
    _refuse_twins(task.name, planned)
    return planned


def _arm(
    spec: dict[str, Any], task: Any, options: dict[str, Any], arm: dict[str, Any]
) -> dict[str, Any]:
    from ogive.lab.budget import match
    from ogive.lab.train import Recipe
    from ogive.parts import Sites

    sites, baseline = (str(Sites.parse(text["sites"])) for text in (arm, spec["baseline"]))
    model = {**task.default_model, **spec["model"], **arm["model"]}
    quick = task.quick_train if spec["quick"] else {}
    train = {**task.default_train, **quick, **spec["train"], **arm["train"]}
    train.pop("lr", None)
    Recipe.read({**train, "lr": spec["learning_rates"][0]})
    mode = "none" if arm["model"] != spec["baseline"]["model"] else spec["match"]
    receipt = match(task.name, options, model, sites, baseline, mode).as_dict()
    return {"sites": sites, "model": receipt.pop("model"), "train": train, "receipt": receipt}


def _refuse_twins(task: str, arms: dict[str, Any]) -> None:
    """Two labels for one trial would compare it with itself."""
    seen: dict[str, str] = {}
    for label, arm in arms.items():
        content = canonical({key: arm[key] for key in ("sites", "model", "train")})
        if content in seen:
            raise StudyError(
                f"{label!r} and {seen[content]!r} are the same on {task}: sites "
                f"{arm['sites'] or '(all at their defaults)'}; leave one of them out"
            )
        seen[content] = label

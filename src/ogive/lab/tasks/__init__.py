"""The tasks of the lab: real data, and synthetic ones whose oracle scores 100 %."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from ogive.errors import ArgumentError, unknown
from ogive.lab.tasks.task import IGNORE, Accuracy, Batch, Oracle, Task, _options

__all__ = ["IGNORE", "Accuracy", "Batch", "Oracle", "Task", "build", "catalogue"]


def catalogue() -> dict[str, type[Task]]:
    """The tasks by name, found by importing this folder's modules and walking the family."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        importlib.import_module(module.name)
    found: dict[str, type[Task]] = {}
    for member in _members(Task):
        if found.setdefault(member.name, member) is not member:
            raise ArgumentError(f"two tasks are named {member.name!r}")
    return dict(sorted(found.items()))


def build(name: str, options: dict[str, Any] | None = None) -> Task:
    """A task from its name and options.

    Raises:
        UnknownName: no task, or no option of this task, has that name.
        DataError: the data it would read cannot be used.
        ArgumentError: an option's value does not fit.
    """
    members = catalogue()
    if name not in members:
        raise unknown("task", name, members)
    member = members[name]
    for option in options or {}:
        if option not in _options(member):
            raise unknown(f"option of task {name!r}", option, _options(member))
    return member(**(options or {}))


def _members(root: type[Task]) -> list[type[Task]]:
    below = [found for child in root.__subclasses__() for found in _members(child)]
    return [root, *below] if vars(root).get("name") else below

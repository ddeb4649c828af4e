"""What a study may hold: each check says what came and what fits."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ogive.errors import StudyError, unknown

if TYPE_CHECKING:
    from ogive.lab.study import Arm, Study

MATCHES = ("parameters", "flops", "none")
LONGEST_NAME = 200
FIRST_TUNING_SEED = 1_000_000
"""Tuning seeds start here and comparison seeds stay below, so the two never meet."""

_STUDY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
# What a written Sites may hold; anything else (a newline, a script tag) is a mistake.
_SITES_TEXT = re.compile(r"[A-Za-z0-9_=(),.+\-/: ]{0,2000}")


def check_label(kind: str, text: object) -> None:
    """A name that a user chose: 1 to 200 visible characters in normal form (NFC).

    Raises:
        StudyError: control or invisible formatting characters (newlines, right-to-left overrides),
            surrounding spaces, or the wrong length.
    """
    if not isinstance(text, str) or not 1 <= len(text) <= LONGEST_NAME or text != text.strip():
        raise StudyError(
            f"{kind} {ascii(text)[:60]} does not fit: text of 1 to {LONGEST_NAME} characters, "
            "without spaces around it, does"
        )
    hidden = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
    odd = [character for character in text if unicodedata.category(character) in hidden]
    if odd or unicodedata.normalize("NFC", text) != text:
        why = f"holds the character {odd[0]!a}" if odd else "is not in normal form (NFC)"
        raise StudyError(f"{kind} {text!a} {why}; visible characters and spaces fit")


def check_names(study: Study) -> None:
    """Names, question, labels and controls."""
    if not isinstance(study.name, str) or not _STUDY_NAME.fullmatch(study.name):
        raise StudyError(
            f"a study cannot be named {study.name!a}: 1 to 100 letters, digits, '.', '_' and '-' "
            "fit, beginning with a letter, a digit or '_'"
        )
    if not isinstance(study.question, str) or not study.question.strip():
        raise StudyError(f"study {study.name!r} needs its question as text, not {study.question!r}")
    if not isinstance(study.variants, Mapping) or not study.variants:
        raise StudyError(
            f"study {study.name!r} needs variants: a mapping from a label to sites such as "
            f"{{'query gelu': 'query=gelu'}}, not {study.variants!r}"
        )
    for label in study.variants:
        check_label("a variant's label", label)
        if label == "baseline":
            raise StudyError("a variant cannot be labelled 'baseline': the baseline is")
    check_sequence("controls", study.controls, "labels of variants")
    check_sequence("plugins", study.plugins, "modules or .py files")
    for label in study.controls:
        if label not in study.variants:
            raise StudyError(str(unknown("control", str(label), map(str, study.variants))))


def check_numbers(study: Study) -> None:
    """Counts, the ladder of learning rates, and what is matched."""
    _check_count("seeds", study.seeds, 1, FIRST_TUNING_SEED)
    _check_count("tuning_seeds", study.tuning_seeds, 1, 1000)
    _check_count("extra_rungs", study.extra_rungs, 0, 10)
    check_sequence("learning_rates", study.learning_rates, "positive numbers, ascending")
    rates = list(study.learning_rates)
    if not rates or not all(_positive(rate) for rate in rates) or rates != sorted(set(rates)):
        raise StudyError(f"learning_rates {rates} do not fit: positive numbers, ascending, do")
    if study.match not in MATCHES:
        raise StudyError(str(unknown("match", str(study.match), MATCHES)))
    if not isinstance(study.quick, bool):
        raise StudyError(f"quick must be True or False, not {study.quick!r}")


def check_tasks(study: Study) -> None:
    """Tasks, their options, and a margin for each."""
    check_sequence("tasks", study.tasks, "names of tasks")
    if not study.tasks or len(set(study.tasks)) != len(study.tasks):
        raise StudyError(f"tasks must be one or more different names, not {list(study.tasks)}")
    for task in study.tasks:
        check_label("a task's name", task)
    for name in ("model", "train", "task_options"):
        _check_mapping(name, getattr(study, name))
    for name in ("margin", "task_options"):
        value = getattr(study, name)
        for task in value if isinstance(value, Mapping) else ():
            if task not in study.tasks:
                raise StudyError(str(unknown(f"task in {name}", str(task), study.tasks)))
    for task, options in study.task_options.items():
        _check_mapping(f"task_options of {task!r}", options)
    for task in study.tasks:
        margin = study.margin.get(task) if isinstance(study.margin, Mapping) else study.margin
        if not _positive(margin):
            raise StudyError(
                f"the margin of task {task!r} is {margin!r}; a positive number in the metric's "
                "units fits: the largest difference that would not matter to you"
            )


def check_arm(label: str, arm: Arm, model: Mapping[str, Any], train: Mapping[str, Any]) -> None:
    """One arm, and what it lays over the study's own settings."""
    text = str(arm.sites)
    if not _SITES_TEXT.fullmatch(text):
        raise StudyError(
            f"the sites of {label!r}, {ascii(text)[:60]}, are no written form such as 'query=gelu'"
        )
    for name, own, shared, belongs in (
        ("model", arm.model, model, {"sites": "to the variants and the baseline"}),
        (
            "train",
            arm.train,
            train,
            {"lr": "into learning_rates, which every arm tunes for itself"},
        ),
    ):
        _check_mapping(f"{name} of {label!r}", own)
        for key, where in belongs.items():
            if key in own or key in shared:
                raise StudyError(f"{name} of {label!r} sets {key!r}; that belongs {where}")


def check_sequence(name: str, value: object, of: str) -> None:
    """A list or tuple, and not a text, whose letters would pass for items."""
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise StudyError(f"{name} must be a list or tuple of {of}, not {value!r}")


def _check_mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise StudyError(f"{name} must be a mapping from names to values, not {value!r}")


def _check_count(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value < high:
        raise StudyError(f"{name} is {value!r}; a whole number from {low} to {high - 1} fits")


def _positive(value: object) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and 0 < value < math.inf  # type: ignore[operator]

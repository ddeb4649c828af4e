"""Budgets: give every variant the baseline's parameters (or FLOPs) and keep the receipt.

A gate adds a matrix; if its variant then wins, was it the gate or the matrix? The feed-forward
network's hidden width is narrowed or widened until the two models cost the same within 1 %.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ogive.errors import BudgetError, unknown
from ogive.lab.tasks import Task, build

MODES = ("parameters", "flops", "none")


@dataclass(frozen=True)
class Receipt:
    """What a variant was given, and how near to the baseline it came.

    Attributes:
        mode: what was matched: "parameters", "flops" or "none".
        target: the baseline's amount (with "none": its parameters).
        reached: the variant's amount.
        difference: (reached − target) / target.
        hidden: the feed-forward network's hidden width that was chosen.
        hidden_before: the width that was asked for (the baseline's).
        parameters, flops_per_token: of the variant at the chosen width, whatever was matched.
        model: the settings to build the variant with.
    """

    mode: str
    target: int
    reached: int
    difference: float
    hidden: int
    hidden_before: int
    parameters: int
    flops_per_token: int
    model: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The receipt as plain, JSON-able values."""
        return asdict(self)


def match(
    task: str,
    task_options: dict[str, Any],
    model: dict[str, Any],
    sites: str,
    baseline: str,
    mode: str = "parameters",
    tolerance: float = 0.01,
) -> Receipt:
    """Choose a variant's hidden width so that it costs what the baseline costs.

    A variant that costs exactly as much keeps its width, and so every start it shares with the
    baseline; otherwise the width whose cost is nearest is taken.

    Args:
        task, task_options: what is learnt (it sets vocabulary and length).
        model: settings of the baseline's model.
        sites, baseline: the written forms of the variant's and the baseline's sites.
        mode: "parameters", "flops" (forward, per token: see `flops_per_token`) or "none".
        tolerance: the largest relative difference allowed.

    Raises:
        BudgetError: no hidden width comes within the tolerance; says what the nearest gives.
        UnknownName: an unknown mode, task, option, setting or part.
    """
    if mode not in MODES:
        raise unknown("budget mode", mode, MODES)
    learnt = build(task, task_options)
    learnt.check_settings(model)
    before = hidden_width(model)
    measure = flops_per_token if mode == "flops" else parameters

    def cost(sites: str, hidden: int) -> int:
        return measure(learnt, {**model, "hidden": hidden}, sites)

    target = cost(baseline, before)
    adjustable = mode != "none" and before > 0
    hidden = _nearest(lambda h: cost(sites, h), before, target) if adjustable else before
    reached = cost(sites, hidden)
    difference = (reached - target) / target
    if mode != "none" and abs(difference) > tolerance:
        raise BudgetError(_out_of_reach(sites, mode, target, reached, hidden, tolerance))
    chosen = {**model, "hidden": hidden}
    return Receipt(
        mode=mode,
        target=target,
        reached=reached,
        difference=difference,
        hidden=hidden,
        hidden_before=before,
        parameters=parameters(learnt, chosen, sites),
        flops_per_token=flops_per_token(learnt, chosen, sites),
        model=chosen,
    )


def parameters(task: Task, model: dict[str, Any], sites: str) -> int:
    """Trainable parameters; a tied matrix counts once. Nothing is allocated (meta device)."""
    with torch.device("meta"):
        return count_parameters(task.model(model, sites))


def count_parameters(model: nn.Module) -> int:
    """Numbers that training changes."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def flops_per_token(task: Task, model: dict[str, Any], sites: str) -> int:
    """FLOPs of matrix products in one forward pass over one sequence, over its length.

    Two per multiply-add, as torch's `FlopCounterMode` counts them in the reference
    implementation, whatever the model runs with (a fused operation hides its products from the
    counter); training costs about three times that. Whole rows of attention are counted, masked
    or not. Element-wise work (activations, norms, the tanh of an additive score) is not in it:
    compare the measured time per step for that.
    """
    plain = task.model({**model, "impl": "reference"}, sites).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain(*task.example())
    return round(counter.get_total_flops() / task.length)


def hidden_width(model: dict[str, Any]) -> int:
    """The feed-forward network's hidden width under these settings; 0 where there is none.

    Where they name none, that is the models' own choice, four times the width.
    """
    hidden = model.get("hidden")
    return 4 * model["width"] if hidden is None else hidden


def _nearest(cost: Callable[[int], int], before: int, target: int) -> int:
    """The hidden width whose cost is nearest to the target.

    Cost grows linearly with the width but for rounding inside gated networks, so the straight
    line through two widths leads to the right one or next to it.
    """
    cost = cache(cost)
    if cost(before) == target:
        return before
    slope = (cost(2 * before) - cost(before)) / before
    guess = round(before + (target - cost(before)) / slope)
    near = [width for width in range(guess - 2, guess + 3) if width >= 1] or [1]
    return min(near, key=lambda width: (abs(cost(width) - target), abs(width - before)))


def _out_of_reach(
    sites: str, mode: str, target: int, reached: int, hidden: int, tolerance: float
) -> str:
    what = {"parameters": "parameters", "flops": "FLOPs per token"}[mode]
    how = (
        f"the nearest hidden width, {hidden}, gives {reached}"
        if hidden
        else f"it has {reached}, and without a feed-forward network there is no width to adjust"
    )
    return (
        f"sites {sites or 'baseline'!r} cannot have the baseline's {target} {what} within "
        f"{tolerance:.1%}: {how} ({(reached - target) / target:+.1%}); make the model larger, "
        'allow a larger tolerance, or do not match (match="none")'
    )

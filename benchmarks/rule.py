"""How large rule R1's constant must be: right implementations against wrong ones, weight by weight.

    python benchmarks/rule.py [--cases 60] [--only tanh]

R1 allows err(ours) ≤ 2 err(eager) + c eps nat. For each case and implementation this computes the
smallest c that would let it pass. For right implementations (the compiled kernels on every
instruction set that is here, and the definition by blocks) the largest c ever needed is shown; for
wrong ones, the share of cases in which they need more than c = 1 and so are caught. A case counts
for a wrong one only where it can show (a row that sees one key has one softmax whatever its score).
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from kernels import cases  # noqa: E402
from kernels import test_bites_kernels as bites  # noqa: E402
from kernels.cases import build_call, random_case  # noqa: E402
from kernels.rule import error, same_specials  # noqa: E402
from ogive.kernels import compiled  # noqa: E402
from ogive.lab.machine import environment  # noqa: E402

WRONG = {
    "scale 1e-4": (bites.with_scale(1 + 1e-4), bites.moves),
    "scale 1e-5": (bites.with_scale(1 + 1e-5), bites.moves),
    "weights in bf16": (bites.with_weight(bites.Rounded), bites.sees),
    "curve 1e-5": (bites.with_weight(bites.RoughExp), bites.sees),
    "row missing in dk": (bites.run_lost_row, bites.first_row_moves),
    "last key dropped": (bites.run_last_key_dropped, bites.sees_last),
}
BLIND = {"linear(normalise=true)": {"scale 1e-4", "scale 1e-5"}}
"""A factor on every score cancels in s / Σs."""


def needed(
    found: dict[str, torch.Tensor],
    eager: dict[str, torch.Tensor],
    truth: dict[str, torch.Tensor],
    nat: dict[str, float],
) -> float:
    """The smallest c at which every tensor of a float32 result keeps the rule; at least 0."""
    eps, most = torch.finfo(torch.float32).eps, 0.0
    for name, true in truth.items():
        if not same_specials(found[name], true):
            return float("inf")
        over = error(found[name], true) - 2 * error(eager[name], true)
        if over > 0:
            most = max(most, over / (eps * nat[name]) if nat[name] else float("inf"))
    return most


def right(call: cases.Call) -> Iterator[dict[str, torch.Tensor]]:
    """Results of implementations that are right."""
    yield cases.ours(call, "chunked")
    if "native" in cases.impls_of(call.case):
        best = compiled.instruction_set
        for name in compiled.supported():
            compiled.instruction_set = name
            yield cases.ours(call, "native")
        compiled.instruction_set = best


def line(weight: str, count: int) -> dict[str, Any]:
    """One weight function's numbers."""
    of_right: list[float] = []
    of_wrong: dict[str, list[float]] = defaultdict(list)
    for seed in range(4_000_000, 4_000_000 + count):
        case = random_case(seed, score="dot", weight=weight, dtype=torch.float32)
        call = build_call(case)
        truth, eager = cases.theirs(call, torch.float64), cases.theirs(call, torch.float32)
        nat = cases.naturals(call)
        of_right += [needed(found, eager, truth, nat) for found in right(call)]
        for name, (run, shows) in WRONG.items():
            if name not in BLIND.get(weight, ()) and shows(call):
                found = cases.ours(call, "reference", run)
                of_wrong[name].append(needed(found, eager, truth, nat))
    caught = {n: sum(c > 1 for c in of_wrong[n]) / len(of_wrong[n]) for n in WRONG if of_wrong[n]}
    return {
        "weight": weight,
        "right": len(of_right),
        "needed": max(of_right),
        "flagged": {str(c): sum(x > c for x in of_right) for c in (0.25, 0.5, 1, 2)},
        "caught": caught,
    }


def main() -> None:
    """Print the table, and keep it where everything was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=60, help="calls of each weight function (60)")
    parser.add_argument("--only", default="", help="weight functions whose written form holds this")
    asked = parser.parse_args()
    heads = ["weight", "right: most c needed", "flagged at ¼, ½, 1, 2", *WRONG]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    lines = []
    for weight in [w for w in cases.WEIGHTS if asked.only in w]:
        found = line(weight, asked.cases)
        lines.append(found)
        flags = ", ".join(str(n) for n in found["flagged"].values())
        shares = [found["caught"].get(name) for name in WRONG]
        caught = ["" if share is None else f"{100 * share:.0f} %" for share in shares]
        cells = [f"{weight}", f"{found['needed']:.2f}", f"{flags} of {found['right']}", *caught]
        print(f"| {' | '.join(cells)} |", flush=True)
    if not asked.only:
        kept = {
            "command": f"python benchmarks/rule.py --cases {asked.cases}",
            "date": datetime.date.today().isoformat(),
            "machine": environment(),
            "lines": lines,
        }
        target = ROOT / "benchmarks" / "results" / "rule.json"
        target.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()

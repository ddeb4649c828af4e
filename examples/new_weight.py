"""A new weight function in one class, and every place where it then is without another edit.

    python examples/new_weight.py

In a checkout it also goes through the batteries of tests, which walk the same family.
"""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

import ogive
from ogive.lab import Study
from ogive.parts import ElementwiseWeight, Facts, Part, build, catalogue, measure

TESTS = Path(__file__).parents[1] / "tests"


class Arctan(ElementwiseWeight):
    """Signed weights that saturate more slowly than tanh; n counts the keys a row may see."""

    name = "arctan"
    formula = r"w_{ij} = \frac{2}{\pi} \arctan(s_{ij}) / n_i"
    source = "an example"
    facts = Facts(bounded=True, odd=True, monotone=True, zero_at_zero=True)

    def value(self, scores, n):
        return scores.atan() * (2 / math.pi) / n


def places() -> Iterator[tuple[str, object]]:
    """Each place, and what it says about the new weight function."""
    yield "catalogue('weight')", catalogue("weight")["arctan"].__qualname__
    yield "written form", build("weight", "arctan")
    yield "facts, measured", measure(Arctan()) == Arctan.facts
    yield "Sites", repr(ogive.Sites.parse("weight=arctan mixed=gate(sigmoid)"))
    yield "attention, and no future in it", future_of_attention()
    yield "Attention, with gradients", gradient_of_layer()
    yield "Decoder", tuple(decoder()(torch.zeros(1, 5, dtype=torch.int64)).shape)
    yield "study", study().spec()["variants"]["arctan"]["sites"]
    yield "ogive parts", listed_by_the_command_line()
    if TESTS.is_dir():
        yield from batteries_of_tests()


def future_of_attention() -> str:
    query, key, value = torch.randn(3, 1, 2, 8, 16).unbind()
    out = ogive.attention(query, key, value, weight="arctan", is_causal=True)
    key[:, :, 5:], value[:, :, 5:] = math.nan, math.inf
    again = ogive.attention(query, key, value, weight="arctan", is_causal=True)
    same = torch.equal(out[:, :, :5], again[:, :, :5])
    return f"weight='arctan' ran on {ogive.last_impl()}; NaN in the future shows: {not same}"


def gradient_of_layer() -> str:
    layer = ogive.Attention(32, 4, sites=ogive.Sites(weight="arctan"))
    layer(torch.randn(2, 6, 32), is_causal=True).square().sum().backward()
    finite = all(bool(p.grad.isfinite().all()) for p in layer.parameters())
    return f"sites weight=arctan, all gradients finite: {finite}"


def decoder() -> torch.nn.Module:
    return ogive.Decoder(256, 32, 2, 4, sites="weight=arctan")


def study() -> Study:
    return Study(
        name="arctan",
        question="Can softmax be replaced by arctan?",
        variants={"arctan": "weight=arctan"},
    )


def listed_by_the_command_line() -> str:
    from ogive.cli.main import app

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        app(["parts", "--family", "weight", "--json"], standalone_mode=False)
    return "listed" if '"arctan"' in out.getvalue() else "missing"


def batteries_of_tests() -> Iterator[tuple[str, object]]:
    sys.path.insert(0, str(TESTS))
    from parts.batteries import WEIGHT_BATTERY, check_facts
    from parts.samples import forms, ready_weight

    yield "tests walk over", [form for form in forms("weight") if form == "arctan"]
    for check in (*WEIGHT_BATTERY, check_facts):
        part: Part = ready_weight("arctan")
        check(part)
        yield "tests passed", f"{check.__name__}(arctan)"


if __name__ == "__main__":
    torch.manual_seed(0)
    for place, what in places():
        print(f"{place:32} {what}")

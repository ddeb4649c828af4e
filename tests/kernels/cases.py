"""The one generator of cases: a seed in, a whole call of the operation out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kernels import oracle
from kernels.natural import Problem, natural
from kernels.rule import violations
from kernels.wide import WIDER, Wide, halves
from ogive.kernels import attention, compiled
from ogive.parts import Sizes, build, score_from

SCORES = tuple(name for name in oracle.SCORES if name != "unscaled_dot")
"""What seeds draw from; the unscaled dot product came later and is tried by name."""
WEIGHTS = tuple(oracle.WEIGHTS)
CAUSAL = ("none", "square", "offset", "tensor")
MASKS = ("none", "bool", "float", "bias", "learned bias", "both")
WINDOWS = (None, (2, 1), (0, 0), (3, None), (None, 2))
BROADCAST = ("bhij", "11ij", "b11j", "1h11", "ij", "j")
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
LENGTHS = (1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65)
WIDTHS = (1, 2, 3, 4, 7, 8, 9, 16, 17, 33)


@dataclass(frozen=True)
class Case:
    """One call, by its choices; tensors are drawn from the seed."""

    seed: int
    score: str = "dot"
    weight: str = "softmax"
    causal: str = "none"
    mask: str = "none"
    broadcast: str = "bhij"
    window: tuple[int | None, int | None] | None = None
    batch: int = 1
    heads: int = 2
    group: int = 1
    queries: int = 5
    keys: int = 5
    width: int = 4
    value_width: int = 4
    dtype: torch.dtype = torch.float32
    scale: float | None = None
    size: float = 1.0

    def __str__(self) -> str:
        shown = {n: v for n, v in self.__dict__.items() if v != getattr(Case(0), n)}
        return "Case(" + ", ".join(f"{n}={v!r}" for n, v in shown.items()) + ")"


@dataclass
class Call:
    """A case made flesh: tensors in the dtype under test, options, and set-up parts."""

    case: Case
    inputs: dict[str, Tensor]  # query, key, value and, where learned, bias
    grad: Tensor
    keep: Tensor
    options: dict[str, Any]  # for attention(), without parts and learned bias
    score: Any = None
    weight: Any = None
    bias: Tensor | None = None  # whatever is added to the scores, learned or not
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def parameters(self) -> dict[str, Tensor]:
        named = {f"score.{n}": t for n, t in self.score.named_parameters()}
        return named | {f"weight.{n}": t for n, t in self.weight.named_parameters()}


def random_case(seed: int, lengths: tuple[int, ...] = LENGTHS, **fixed: Any) -> Case:
    """A random case; sizes stay small where the natural error needs a Jacobian for each row."""
    pick = random.Random(f"ogive torture {seed}")
    score, weight = pick.choice(SCORES), pick.choice(WEIGHTS)
    if pick.random() < 0.12:
        score, weight = "dot", "softmax"
    score, weight = fixed.get("score", score), fixed.get("weight", weight)
    heavy = weight not in oracle.ELEMENTWISE and weight not in (
        "softmax",
        "softmax1",
        "sink",
        "cog",
    )
    lengths = tuple(n for n in lengths if n <= (17 if heavy else 65))
    drawn_causal = pick.choice(CAUSAL)
    causal = fixed.get("causal", drawn_causal)
    queries = pick.choice(lengths)
    keys = queries if causal == "square" or pick.random() < 0.3 else pick.choice(lengths)
    group = pick.choice((1, 1, 2, 3))
    drawn = {
        "score": score,
        "weight": weight,
        "causal": causal,
        "mask": pick.choice(MASKS),
        "broadcast": pick.choice(BROADCAST),
        "window": pick.choice(WINDOWS) if causal != "none" or queries == keys else None,
        "batch": pick.choice((1, 1, 2, 3)),
        "heads": group * pick.choice((1, 2)),
        "group": group,
        "queries": queries,
        "keys": keys,
        "width": pick.choice(WIDTHS),
        "value_width": pick.choice(WIDTHS),
        "dtype": pick.choices(DTYPES, (5, 2, 2, 1))[0],
        "scale": pick.choice((None, None, 0.1, 1.0)),
        "size": pick.choice((0.3, 1.0, 1.0, 2.0)),
    }
    return Case(seed, **(drawn | fixed))


def build_call(case: Case) -> Call:
    """Tensors, options and parts of a case."""
    draw = torch.Generator().manual_seed(case.seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    b, h, i, j = case.batch, case.heads, case.queries, case.keys
    g = h // case.group
    lift = 0.5 if case.weight.startswith("linear(normalise=true") else 0.0
    inputs = {
        "query": normal(b, h, i, case.width) * case.size,
        "key": normal(b, g, j, case.width) * case.size,
        "value": normal(b, g, j, case.value_width),
    }
    if lift:  # sums of scores that nearly vanish measure luck: positive maps keep them away
        inputs["query"], inputs["key"] = inputs["query"].abs() + lift, inputs["key"].abs() + lift
    inputs = {name: t.to(case.dtype) for name, t in inputs.items()}
    grad = normal(b, h, i, case.value_width).to(case.dtype)
    call = Call(case, inputs, grad, torch.ones(0), {"scale": case.scale})
    _parts(call, normal)
    _masks(call, normal)
    return call


def _parts(call: Call, normal: Callable[..., Tensor]) -> None:
    case = call.case
    sizes = Sizes(case.heads * case.width, case.heads, case.width)
    torch.manual_seed(case.seed)  # parts draw their parameters from torch's own generator
    call.score = score_from(case.score).setup(sizes)
    call.weight = build("weight", case.weight).setup(sizes)
    for parameter in call.parameters.values():
        parameter.data = (parameter.double() + normal(*parameter.shape)).to(case.dtype)


def _masks(call: Call, normal: Callable[..., Tensor]) -> None:
    case, options = call.case, call.options
    full = {"b": case.batch, "h": case.heads, "i": case.queries, "j": case.keys, "1": 1}
    shape = [full[axis] for axis in case.broadcast]
    mask, bias = None, None
    if case.mask in ("bool", "both"):
        mask = options["attn_mask"] = normal(*shape) > -0.7
    if case.mask == "float":
        bias = normal(*shape).to(case.dtype)
        mask = normal(*shape) > -0.7
        lowest = torch.full_like(bias, torch.finfo(case.dtype).min)
        lowest = lowest.masked_fill(normal(*shape) > 0, -torch.inf)
        options["attn_mask"] = torch.where(mask, bias, lowest)
        bias = torch.where(mask, bias, 0)
    if case.mask in ("bias", "both"):
        bias = options["attn_bias"] = normal(*shape).to(case.dtype)
    if case.mask == "learned bias":
        bias = call.inputs["bias"] = normal(*shape).to(case.dtype)
    offset: int | Tensor = 0
    if case.causal == "offset":
        offset = int(call.case.seed % (2 * case.keys + 1)) - case.keys // 2
    if case.causal == "tensor":
        offset = torch.arange(case.batch) * 2 - 1 + case.keys - case.queries
    if case.causal in ("offset", "tensor"):
        options["q_offset"] = offset
    if case.causal != "none":
        options["is_causal"] = True
    if case.window is not None:
        options["window_size"] = case.window
    if case.group > 1:
        options["enable_gqa"] = True
    call.bias = bias if bias is None else bias.view(*[1] * (4 - bias.dim()), *bias.shape)
    call.keep = oracle.visible_pairs(
        (case.batch, case.heads, case.queries, case.keys),
        causal=case.causal != "none",
        offset=offset,
        window=case.window,
        mask=mask,
    )


# --- running ----------------------------------------------------------------------------------


def ours(call: Call, impl: str, run: Callable[..., Any] = attention) -> dict[str, Tensor]:
    """out and every gradient of `attention` (or of a twin of it) on this call."""
    leaves = {n: t.detach().clone().requires_grad_() for n, t in call.inputs.items()}
    tensors = dict(leaves)
    options = dict(call.options)
    if "bias" in tensors:
        options["attn_bias"] = tensors.pop("bias")
    out = run(**tensors, score=call.score, weight=call.weight, impl=impl, **options)
    return _with_gradients(out, call.grad, leaves | call.parameters)


def _with_gradients(out: Tensor, grad: Tensor, leaves: dict[str, Tensor]) -> dict[str, Tensor]:
    if not out.requires_grad:
        return {"out": out.detach()} | {n: torch.zeros_like(t) for n, t in leaves.items()}
    found = torch.autograd.grad(
        out, list(leaves.values()), grad, allow_unused=True, materialize_grads=True
    )
    return {"out": out.detach(), **dict(zip(leaves, found, strict=True))}


def theirs(call: Call, dtype: torch.dtype) -> dict[str, Tensor]:
    """out and every gradient of the oracle, run in `dtype`."""
    leaves = {
        n: t.detach().to(dtype).requires_grad_() for n, t in (call.inputs | call.parameters).items()
    }
    bias = leaves.get("bias", None if call.bias is None else call.bias.to(dtype))
    answer = oracle.attend(
        *(leaves[n] for n in ("query", "key", "value")),
        keep=call.keep,
        bias=bias,
        **formulas(call),
        score_params=_family(leaves, "score."),
        weight_params=_family(leaves, "weight."),
        **call.extra,
    )
    return _with_gradients(answer.out, call.grad.to(dtype), leaves)


def theirs_wider(call: Call) -> dict[str, tuple[Tensor, Tensor]]:
    """The oracle's out and gradients in numbers wider than float64, each as a sum of two."""
    leaves = {
        n: Wide(t.detach().double().numpy()) for n, t in (call.inputs | call.parameters).items()
    }
    bias = leaves.get("bias", None if call.bias is None else Wide(call.bias.double().numpy()))
    answer: Any = oracle.attend(
        *(leaves[n] for n in ("query", "key", "value")),  # type: ignore[arg-type]
        keep=call.keep,
        bias=bias,  # type: ignore[arg-type]
        **formulas(call),
        score_params=_family(leaves, "score."),
        weight_params=_family(leaves, "weight."),
        **call.extra,
    )
    answer.out.backward(call.grad.double().numpy())
    gradients = {n: np.zeros_like(w.data) if w.grad is None else w.grad for n, w in leaves.items()}
    return {"out": answer.out.halves(), **{n: halves(g) for n, g in gradients.items()}}


def broken_by(call: Call, impls: tuple[str, ...]) -> list[str]:
    """What of these implementations' results breaks R1."""
    return broken(call, {impl: ours(call, impl) for impl in impls})


def broken(call: Call, results: dict[str, dict[str, Tensor]]) -> list[str]:
    """What breaks R1 among results, given by the names of who found them."""
    truth, eager = theirs(call, torch.float64), theirs(call, call.case.dtype)
    nat, wider = naturals(call), None
    if WIDER:
        wider = cache(lambda: theirs_wider(call))
    lines = []
    for name, found in results.items():
        more = violations(found, eager, truth, nat, call.case.dtype, wider)
        lines += [f"{name} {call.case}: {line}" for line in more]
    return lines


def formulas(call: Call) -> dict[str, Any]:
    """The oracle's formulas for a call's parts, and its scale."""
    return {
        "score": (oracle.SCORES | oracle.ACTIVATED)[call.case.score],
        "weight": oracle.WEIGHTS[call.case.weight],
        "scale": call.case.scale,
    }


def naturals(call: Call) -> dict[str, float]:
    """nat of out and of every gradient."""
    case = call.case
    exact = {n: t.detach().double() for n, t in (call.inputs | call.parameters).items()}
    bias = exact.get("bias", None if call.bias is None else call.bias.double())
    arguments = formulas(call)
    parameters = {
        "score_params": _family(exact, "score."),
        "weight_params": _family(exact, "weight."),
    }
    answer = oracle.attend(
        *(exact[n] for n in ("query", "key", "value")),
        keep=call.keep,
        bias=bias,
        dense=True,
        **arguments,
        **parameters,
    )
    formula = arguments["score"]
    problem = Problem(
        exact["query"],
        exact["key"],
        exact["value"],
        bias if bias is None else bias.view(*[1] * (4 - bias.dim()), *bias.shape),
        call.grad.double(),
        call.keep,
        formula.scale(case.width) if case.scale is None else case.scale,
        case.score,
        formula,
        case.weight,
        arguments["weight"],
        **parameters,
        scores=answer.scores,
        weights=answer.weights,
    )
    found = natural(problem)
    return {name: found[name.replace("score.score.", "score.")] for name in ("out", *exact)}


COMPILED_SCORES = (
    "dot",
    "unscaled_dot",
    "dot,softcap(2)",
    "cosine",
    "cosine(learned=true)",
    "bilinear",
    "distance",
    "distance(power=1)",
    "additive(tanh)",
    "gat",
    "gatv2",
    "gatv2,softcap(2)",
)


def impls_of(case: Case) -> tuple[str, ...]:
    """The implementations that can run a case, by name."""
    torchs = ("sdpa", "auto") if (case.score, case.weight) == ("dot", "softmax") else ()
    runs = case.score in COMPILED_SCORES and not compiled.missing
    return ("reference", *torchs, *(("native",) if runs else ()), "chunked")


def ways_of(case: Case) -> tuple[str, ...]:
    """`impls_of` and, where sums over keys may come first, "linear"; it refuses masks of pairs.

    Those are weights that are scores, and masks that hide whole keys.
    """
    parts = case.score in ("dot", "bilinear") and case.weight.startswith(("linear", "identity"))
    whole = case.broadcast in ("b11j", "j") or (case.broadcast == "1h11" and case.group == 1)
    mask = case.mask == "none" or (case.mask == "bool" and whole)
    near = case.window is None or case.window[0] is None
    runs = parts and mask and near and not compiled.missing
    return (*impls_of(case), *(("linear",) if runs else ()))


def _family(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    """A part's parameters by their last names (a chain's first score keeps its own)."""
    return {n.split(".")[-1]: t for n, t in tensors.items() if n.startswith(prefix)}


__all__ = ["Call", "Case", "build_call", "ours", "random_case", "replace", "theirs"]

"""T22: the oracle against plain Python loops in fifty digits, values and gradients.

Fifteen lines a part, written a third time, so that the truth is not one author's slip.
"""

from __future__ import annotations

import random

import pytest
import torch
from mpmath import mp, mpf

from kernels import oracle
from kernels.cases import build_call, ours, random_case, theirs, theirs_wider
from kernels.wide import WIDER

mp.dps = 50


def length(x):
    return mp.sqrt(sum(a * a for a in x))


def product(x, y):
    return sum((a * b for a, b in zip(x, y, strict=True)), mpf(0))


def leaky(x):
    return x if x > 0 else mpf(0.2) * x


def cap(x):
    return 2 * mp.tanh(x / 2)


def score(name, q, k, p, scale):
    d = len(q)
    plus = [a + b for a, b in zip(q, k, strict=True)]
    minus = [a - b for a, b in zip(q, k, strict=True)]
    sizes = {"dot": mp.sqrt(d), "bilinear": mp.sqrt(d), "distance": mp.sqrt(d)}
    sizes["distance(power=1)"] = mp.sqrt(mp.sqrt(d))
    base = name.split(",")[0]
    factor = 1 / sizes.get(base, mpf(1)) if scale is None else mpf(scale)
    if base in ("dot", "unscaled_dot"):
        s = product(q, k)
    elif base.startswith("cosine"):
        s = product(q, k) / length(q) / length(k) * (p["weight"][0][0] if p else 10)
    elif base == "bilinear":
        s = sum(q[a] * p["weight"][a][b] * k[b] for a in range(d) for b in range(d))
    elif base == "distance":
        s = -product(minus, minus) / 2
    elif base == "distance(power=1)":
        s = -length(minus)
    elif base == "additive(tanh)":
        s = product(p["weight"], [mp.tanh(x) for x in plus])
    elif base == "gatv2":
        s = product(p["weight"], [leaky(x) for x in plus])
    else:
        s = leaky(product(p["query_weight"], q) + product(p["key_weight"], k))
    return cap(s * factor) if "softcap" in name else s * factor


def threshold(z, power):
    low, high = max(z) - 1, max(z)
    for _ in range(170):
        middle = (low + high) / 2
        if sum(max(x - middle, 0) ** power for x in z) >= 1:
            low = middle
        else:
            high = middle
    return low


def weights(name, s, p):
    n, base = mpf(len(s)), name.split("(")[0]
    e = [mp.exp(x) for x in s]
    if base in ("softmax", "softmax1", "sink"):
        extra = {"softmax": 0, "softmax1": 1}.get(base, mp.exp(p["logit"][0][0]) if p else 0)
        return [x / (sum(e) + extra) for x in e]
    if base == "softpick":
        total = sum(abs(x - 1) for x in e)
        return [max(x - 1, 0) / total if total else mpf(0) for x in e]
    if base == "cog":
        total = sum(mp.exp(abs(x)) for x in s)
        return [mp.sign(x) * mp.exp(abs(x)) / total for x in s]
    if base == "sparsemax":
        t = threshold(s, 1)
        return [max(x - t, 0) for x in s]
    if base == "entmax15":
        t = threshold([x / 2 for x in s], 2)
        return [max(x / 2 - t, 0) ** 2 for x in s]
    if name == "linear(normalise=true)":
        return [x / sum(s) for x in s]
    if base == "sigmoid":
        b = -mp.log(n) if "log_n" in name else mpf(-1)
        return [1 / (1 + mp.exp(-x - b)) for x in s]
    if base == "softplus":
        return [mp.log(1 + mp.exp(x)) / n ** mpf("0.5" if "0.5" in name else 1) for x in s]
    curve = {
        "tanh": lambda x: mp.tanh(x) / n,
        "relu": lambda x: max(x, 0) / (n if "power=1" in name else 1),
        "relu2": lambda x: max(x, 0) ** 2 / n,
        "silu": lambda x: x / (1 + mp.exp(-x)) / n,
        "gelu": lambda x: x * mp.ncdf(x) / n,
        "identity": lambda x: x / n,
        "linear": lambda x: x,
    }[base]
    return [curve(x) for x in s]


def exact(tensor):
    if tensor.dim() == 0:
        return mpf(tensor.item())
    return [exact(row) for row in tensor]


def loop_attention(call, tensors):
    """out as nested lists; tensors are nested lists of mpf."""
    case = call.case
    q, k, v = tensors["query"], tensors["key"], tensors["value"]
    bias = tensors.get("bias")
    out = []
    for b in range(case.batch):
        for h in range(case.heads):
            ps = {n.split(".")[-1]: t[h] for n, t in tensors.items() if n.startswith("score.")}
            pw = {n.split(".")[-1]: [t[h]][0] for n, t in tensors.items() if "weight.logit" in n}
            g = h // case.group
            for i in range(case.queries):
                seen = [j for j in range(case.keys) if call.keep[b, h, i, j]]
                s = [score(case.score, q[b][h][i], k[b][g][j], ps, case.scale) for j in seen]
                if bias is not None:
                    s = [x + bias[b][h][i][j] for x, j in zip(s, seen, strict=True)]
                w = weights(case.weight, s, pw) if seen else []
                columns = range(case.value_width)
                out += [
                    sum((x * v[b][g][j][c] for x, j in zip(w, seen, strict=True)), mpf(0))
                    for c in columns
                ]
    return out


def tiny(seed):
    names = list(oracle.WEIGHTS), list(oracle.SCORES)
    case = random_case(
        seed,
        lengths=(1, 2, 3),
        weight=names[0][seed % len(names[0])],
        score=names[1][seed % len(names[1])],
        dtype=torch.float64,
        broadcast="bhij",
        batch=1,
        width=2,
        value_width=1,
    )
    call = build_call(case)
    return case, call


def nested(call):
    full = call.inputs | {n: t.detach() for n, t in call.parameters.items()}
    if call.bias is not None:
        full["bias"] = call.bias
    return {name: exact(tensor) for name, tensor in full.items()}


@pytest.mark.parametrize("seed", range(100))
def test_three_authors_agree(seed, count):
    """Loops, oracle and the reference in float64, to 1e-13: values and every gradient."""
    case, call = tiny(seed)
    tensors = nested(call)
    truth = loop_attention(call, tensors)
    results = {"oracle": theirs(call, torch.float64), "reference": ours(call, "reference")}
    for author, found in results.items():
        gap = max(
            abs(a - mpf(b)) for a, b in zip(truth, found["out"].flatten().tolist(), strict=True)
        )
        assert gap <= 1e-13 * max(1, *map(abs, truth)), f"{author}: out of {case} by {gap}"
    pick = random.Random(seed)
    for name in sorted(call.inputs | call.parameters):
        slope = derivative(call, tensors, name, pick)
        if slope is None:
            continue
        at, expected = slope
        for author, found in results.items():
            gap = abs(expected - mpf(found[name][at].item()))
            assert gap <= 1e-13 * max(1, abs(expected)), f"{author}: d{name}{at} of {case} by {gap}"
    count("T22", 1)


@pytest.mark.skipif(not WIDER, reason="long double is no wider than float64 here")
@pytest.mark.parametrize("seed", range(0, 200, 2))
def test_the_wider_oracle_has_more_digits(seed, count):
    """Against the loops: 1e-17, and 1e-15 where a formula holds a constant rounded to float64."""
    case, call = tiny(seed)
    rounded = case.scale is None or case.weight.startswith("gelu")
    allowed = mpf(1e-15 if rounded else 1e-17)
    tensors, found = nested(call), theirs_wider(call)
    truth = loop_attention(call, tensors)
    for a, *b in zip(truth, *(t.flatten().tolist() for t in found["out"]), strict=True):
        assert abs(a - sum(map(mpf, b))) <= allowed * max(1, *map(abs, truth)), str(case)
    for name in sorted(call.inputs | call.parameters):
        slope = derivative(call, tensors, name, random.Random(seed))
        if slope is not None:
            at, expected = slope
            gap = abs(expected - sum(mpf(t[at].item()) for t in found[name]))
            assert gap <= allowed * max(1, abs(expected)), f"d{name}{at} of {case} by {gap}"
    count("T22", 1)


def derivative(call, tensors, name, pick):
    """(place, ∂ Σ grad·out / ∂ that number of `name`) by central differences in fifty digits."""
    shape = (call.inputs | call.parameters)[name].shape
    at = tuple(pick.randrange(size) for size in shape)
    row = tensors[name]
    for index in at[:-1]:
        row = row[index]
    start, step, sums = row[at[-1]], mpf(10) ** -20, []
    for sign in (1, -1):
        row[at[-1]] = start + sign * step
        out = loop_attention(call, tensors)
        sums.append(sum(mpf(g) * o for g, o in zip(call.grad.flatten().tolist(), out, strict=True)))
    row[at[-1]] = start
    return at, (sums[0] - sums[1]) / (2 * step)

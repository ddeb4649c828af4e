"""The bugs: each is one replacement in one file under src/ogive/kernels.

What is replaced must stand there exactly once, or the run stops (and a test fails): a mutant whose
place has gone proves nothing. Most are kinds of bugs that attention kernels have had.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

HOME = Path("src/ogive/kernels")
TORTURE = ("tests/kernels/test_native_torture.py", "-k", "keeps_the_rule and (2000000 or 2000100)")
SPECIALS = (
    "tests/kernels/test_t04_specials.py",
    "-k",
    "hidden_values and dot and (softmax or tanh)",
)
ADDITIVE = ("tests/kernels/test_additive.py", "-k", "out_of_range")
LINEAR = ("tests/kernels/test_linear.py",)
EDGES = ("tests/kernels/test_edges_native.py",)


@dataclass(frozen=True)
class Mutant:
    """One bug.

    Attributes:
        name: what is wrong, in words.
        file: under `HOME`.
        old, new: the text that goes and the text that comes.
        tests: arguments of pytest; one of these tests must fail.
        survives: why nothing kills it, where that is so and has been looked into.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...] = TORTURE
    survives: str = ""

    @property
    def compiled(self) -> bool:
        """Whether the module must be built again."""
        return self.file.startswith("csrc/")

    def applied(self, text: str) -> str:
        """The file's text with the bug in it.

        Raises:
            LookupError: what is to be replaced does not stand there exactly once.
        """
        found = text.count(self.old)
        if found != 1:
            where = f"{self.name}: {self.file} holds {found} times, not once"
            raise LookupError(f"{where}: {self.old!r}")
        return text.replace(self.old, self.new)


def _row(*lines: str) -> str:
    return "\n".join(lines)


MUTANTS = [
    # --- numbers that are nearly right ---
    Mutant(
        "the scale is off by 1e-4",
        "native.py",
        "scale=float(factor),",
        "scale=float(factor) * 1.0001,",
    ),
    Mutant(
        "weights rounded to bfloat16",
        "csrc/weigh.h",
        "store<T>(row.scores + k, one.weight);",
        "store<T>(row.scores + k, (Vec<T>)((Int<T>)one.weight & ~(Int<T>{} + 0xffff)));",
    ),
    Mutant("exp is wrong by 1e-5", "csrc/simd.h", "{0.4999999403953552, ", "{0.4999, "),
    Mutant(
        "delta in bfloat16",
        "csrc/delta.h",
        "return total + sums;",
        "return (Vec<T>)((Int<T>)(total + sums) & ~(Int<T>{} + 0xffff));",
    ),
    Mutant(
        "too few terms of log1p",
        "csrc/simd.h",
        "for (int k = 7; k >= 0; --k) p = p * t + tail[k];",
        "for (int k = 6; k >= 0; --k) p = p * t + tail[k];",
    ),
    # --- shares of a row ---
    Mutant("no delta", "csrc/rows.h", "g = w * (g - delta);", "g = w * g;"),
    Mutant(
        "what came before a larger score is not shrunk",
        "csrc/weigh.h",
        "store<T>(out + k, load<T>(out + k) * shrink);",
        "store<T>(out + k, load<T>(out + k));",
    ),
    Mutant(
        "the total before a larger score is not shrunk",
        "csrc/weigh.h",
        "total = total * shrink + sum<T>(sums);",
        "total = total + sum<T>(sums);",
    ),
    Mutant(
        "lse without the log of the total",
        "csrc/rows.h",
        "return total == 0 ? kNothing<T> : top + std::log(total);",
        "return total == 0 ? kNothing<T> : top;",
    ),
    Mutant(
        "the sink takes no share",
        "csrc/weigh.h",
        "total[r] = sink == kNothing<T> ? 0 : 1;",
        "total[r] = 0;",
    ),
    Mutant(
        "the sink's gradient has the wrong sign",
        "dense.py",
        "torch.exp(call.constant - given.lse) * -delta",
        "torch.exp(call.constant - given.lse) * delta",
    ),
    Mutant(
        "lse has no gradient",
        "dense.py",
        "if given.grad_lse is None else -given.grad_lse",
        "if given.grad_lse is None else 0 * given.grad_lse",
        ("tests/kernels/test_statistics.py",),
    ),
    Mutant(
        "cog's delta without its sign",
        "csrc/rows.h",
        "g = e * (g - sign * delta) * sign * sign;",
        "g = e * (g - delta) * sign * sign;",
    ),
    Mutant(
        "softpick's delta without its sign",
        "csrc/rows.h",
        "const Vec<T> signed_delta = s > T(0) ? delta : (s < T(0) ? -delta : Vec<T>{});",
        "const Vec<T> signed_delta = delta;",
    ),
    Mutant(
        "linear weights are not divided backward",
        "csrc/rows.h",
        _row("    g = (g - delta) * over;", "    s *= over;"),
        "    g = (g - delta) * over;",
    ),
    # --- curves of one score ---
    Mutant(
        "sigmoid's slope is its square",
        "csrc/curves.h",
        "return {o.below, o.slope};",
        "return {o.below, o.below * o.below};",
    ),
    Mutant(
        "relu2's slope lacks its 2",
        "csrc/curves.h",
        "return {r * r * c, T(2) * r * c};",
        "return {r * r * c, r * c};",
    ),
    Mutant(
        "silu's slope lacks a term",
        "csrc/curves.h",
        "o.below * (T(1) + s * o.above) * c}",
        "o.below * c}",
    ),
    Mutant(
        "gelu's slope lacks the density",
        "csrc/curves.h",
        "(below + s * density) * c}",
        "below * c}",
    ),
    # --- who sees whom ---
    Mutant(
        "the last key is dropped",
        "csrc/seen.h",
        "int64_t high = p.right < 0 ? p.keys : std::min(p.keys, at + p.right + 1);",
        "int64_t high = p.right < 0 ? p.keys - 1 : std::min(p.keys, at + p.right + 1);",
    ),
    Mutant(
        "causal is off by one",
        "csrc/seen.h",
        "int64_t high = p.right < 0 ? p.keys : std::min(p.keys, at + p.right + 1);",
        "int64_t high = p.right < 0 ? p.keys : std::min(p.keys, at + p.right + 2);",
    ),
    Mutant(
        "the window is one too wide, forward",
        "csrc/seen.h",
        "int64_t low = p.left < 0 ? 0 : std::max<int64_t>(0, at - p.left);",
        "int64_t low = p.left < 0 ? 0 : std::max<int64_t>(0, at - p.left - 1);",
    ),
    Mutant(
        "one query is missing from dk",
        "csrc/seen.h",
        "int64_t high = p.left < 0 ? p.queries : std::min(p.queries, at + p.left + 1);",
        _row(
            "int64_t high = p.left < 0 ? p.queries : std::min(p.queries, at + p.left + 1);",
            "  if (p.right >= 0) low = std::max<int64_t>(low, at + 1);",
        ),
    ),
    Mutant(
        "every batch has the first one's offset",
        "csrc/seen.h",
        "const int64_t at = i + (p.offset ? *p.offset.at<int64_t>(b, 0) : 0);",
        "const int64_t at = i + (p.offset ? *p.offset.at<int64_t>(0, 0) : 0);",
    ),
    Mutant(
        "half a panel is read from the panel's start",
        "csrc/tile.h",
        "*right = panels + j * depth + (low - j);",
        "*right = panels + j * depth;",
    ),
    Mutant(
        "channels that end in half a panel are left out",
        "csrc/tile.h",
        "if (j < columns) add_panel",
        "if (j + Lanes<T>::count / 2 < columns) add_panel",
    ),
    # --- heads, groups, strides ---
    Mutant(
        "heads of a group are interleaved",
        "csrc/forward.h",
        "h / (p.heads / p.shared)",
        "h % p.shared",
    ),
    Mutant(
        "one head of a group gives keys their gradient",
        "csrc/backward.h",
        "for (int64_t member = 0; member < group; ++member) {",
        "for (int64_t member = 0; member < 1; ++member) {",
    ),
    Mutant(
        "one head of a group gives keys their gradient, of one query",
        "csrc/few_backward.h",
        "write_products<T>({p.grad_key, b, g, j0, columns, p.width}, rows, ",
        "write_products<T>({p.grad_key, b, g, j0, columns, p.width}, p.queries, ",
    ),
    Mutant(
        "keys that one query does not see get what another left",
        "csrc/few_backward.h",
        "std::fill(grads, grads + at.rows * kSpan, T(0));",
        "",
    ),
    Mutant(
        "strides of batch and head are swapped",
        "csrc/exchange.cpp",
        "? 0 : tensor.strides[axis];",
        "? 0 : tensor.strides[tensor.axes == 4 && axis < 2 ? 1 - axis : axis];",
    ),
    Mutant(
        "gradients of key and value are swapped",
        "compiled.py",
        'made.get("key"), made.get("value")',
        'made.get("value"), made.get("key")',
    ),
    Mutant(
        "the last hand is not added",
        "csrc/hands.h",
        "for (int64_t hand = 1; hand < hands; ++hand)",
        "for (int64_t hand = 1; hand < hands - 1; ++hand)",
    ),
    # --- bias, softcap, dropout ---
    Mutant(
        "the bias's gradient is added to what memory held",
        "dense.py",
        "fresh = torch.empty_like if once else torch.zeros_like",
        "fresh = torch.empty_like",
    ),
    Mutant(
        "a bias's gradient that many pairs share keeps the last pair's",
        "dense.py",
        "return call.bias.shape == pairs",
        "return len(call.bias.shape) == len(pairs)",
    ),
    Mutant(
        "the softcap's slope is forgotten",
        "csrc/turn.h",
        "store<T>(grads + k, load<T>(grads + k) * load<T>(slopes + k));",
        "store<T>(grads + k, load<T>(grads + k) * (slopes[k] == slopes[k] ? T(1) : T(0)));",
    ),
    Mutant(
        "what dropout leaves is not scaled up",
        "csrc/dropout.h",
        "factor(splat<T>(T(1 / (1 - dropout)))) {}",
        "factor(splat<T>(T(1))) {}",
    ),
    Mutant(
        "dropout is another pattern backward",
        "csrc/dropout.h",
        "const uint64_t row = counted(head, i);",
        "const uint64_t row = counted(head, i + 1);",
    ),
    Mutant(
        "every batch drops the same",
        "csrc/dropout.h",
        "return counted(counted(counted(uint64_t(p.seed), b), h), i);",
        "return counted(counted(counted(uint64_t(p.seed), b - b), h), i);",
    ),
    Mutant(
        "dropout is forgotten in the slope",
        "csrc/turn.h",
        "if (stay) g *= load<T>(stay + k);",
        "",
    ),
    # --- additive scores ---
    Mutant(
        "leaky relu's linear part forgets its slope in the queries' gradient",
        "csrc/additive_ramp.h",
        "rows[r] = leak * sum<T>(sums);",
        "rows[r] = sum<T>(sums);",
    ),
    Mutant(
        "the slope of tanh by exponentials is half",
        "csrc/additive_ratio.h",
        "static constexpr int factor = 2, slope = 4;",
        "static constexpr int factor = 2, slope = 2;",
    ),
    Mutant(
        "the last of four features that share a division is never out of reach",
        "csrc/additive_ratio.h",
        "far = far || (f + k < some.count && side.far(some.at[f + k]));",
        "far = far || (f + k + 1 < some.count && side.far(some.at[f + k]));",
        ADDITIVE,
    ),
    # --- linear attention and edges ---
    Mutant(
        "keys within a chunk are not kept for later queries",
        "csrc/linear_forward.h",
        "if (at.high > at.low) state.add(keys, values, keys, nullptr);",
        "if (at.high < at.low) state.add(keys, values, keys, nullptr);",
        LINEAR,
    ),
    Mutant(
        "no delta, over edges",
        "csrc/edge_weigh.h",
        "absolute<T>(w) * (load<T>(g + k) - signed_delta));",
        "absolute<T>(w) * load<T>(g + k));",
        EDGES,
    ),
    Mutant(
        "the last edge of a source is missing from its gradients",
        "csrc/edge_backward.h",
        "const int64_t count = std::min(kGathered, end - e);",
        "const int64_t count = std::min(kGathered, end - e - 1);",
        EDGES,
    ),
    # --- NaN ---
    Mutant(
        "nobody looks for NaN",
        "dense.py",
        _row("    if not (wild or _unwatched(call)):", "        return out, lse"),
        "    return out, lse",
        SPECIALS,
    ),
]

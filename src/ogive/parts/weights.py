"""Weight functions: a row of scores and who may be seen, to a row of weights.

The mask belongs to the weight function. `Weight.forward` replaces hidden scores before a member
sees them and zeroes hidden weights after, so an author cannot forget it, and a row with nothing
to see weighs nothing.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import ArgumentError
from ogive.parts.facts import Facts
from ogive.parts.part import Part, Sizes, flag, number, setup_error


class Weight(Part):
    """scores (…, queries, keys), keep (bool, broadcastable to scores; None sees all) → weights.

    Wherever keep is False the weight is exactly zero with zero gradient, whatever the score
    there holds, NaN and infinities included. Half precision is computed in float32 and rounded
    once: neither a row's sum nor its count of keys fits in eight bits.
    """

    family = "weight"

    def forward(self, scores: Tensor, keep: Tensor | None = None) -> Tensor:
        wide = scores.to(torch.promote_types(scores.dtype, torch.float32))
        if keep is None:
            return self.weigh(wide, None).to(scores.dtype)
        keep = keep.expand(*keep.shape[:-1], scores.shape[-1])
        hidden = ~keep
        weights = self.weigh(wide.masked_fill(hidden, 0), keep).masked_fill(hidden, 0)
        return weights.to(scores.dtype)

    def weigh(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        """Weights from scores whose hidden entries are zero; a family member writes this.

        What it returns at hidden places is thrown away, but a sum over a row must leave them out.
        """
        raise NotImplementedError

    def matches_heads(self, heads: int) -> None:
        """Raise `ArgumentError` if this weight function was set up for other heads."""


class ElementwiseWeight(Weight):
    """A weight function of each score and of n, the number of keys that the row may see."""

    def value(self, scores: Tensor, n: Tensor) -> Tensor:
        """Weights of scores (…, queries, keys); n (…, queries or 1, 1) is at least 1."""
        raise NotImplementedError

    def weigh(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        return self.value(scores, visible_count(scores, keep))


class PowerLength(ElementwiseWeight):
    """f(s) / n^length_power; a member writes `curve`. The written form always shows the power."""

    spelled_out = ("length_power",)

    def __init__(self, length_power: float = 1) -> None:
        super().__init__()
        self.length_power = number(f"{self.name}(length_power)", length_power)

    def curve(self, scores: Tensor) -> Tensor:
        raise NotImplementedError

    def value(self, scores: Tensor, n: Tensor) -> Tensor:
        weights = self.curve(scores)
        return weights / n**self.length_power if self.length_power else weights


def visible_count(scores: Tensor, keep: Tensor | None) -> Tensor:
    """n: how many keys each row may see, at least 1, in the dtype of the scores."""
    if keep is None:
        return scores.new_full((1, 1), max(scores.shape[-1], 1))
    return keep.sum(-1, keepdim=True).clamp_min(1).to(scores.dtype)


# --- rows that share one unit of weight ---------------------------------------------------


class Softmax(Weight):
    """Weights that are positive and sum to one over what the row sees."""

    name = "softmax"
    formula = r"w_{ij} = e^{s_{ij}} / \sum_k e^{s_{ik}}"
    source = "Vaswani 2017 (1706.03762)"
    facts = Facts(nonnegative=True, rows_sum_to_one=True, bounded=True, monotone=True)

    def weigh(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        return over_sum(shifted_exp(scores, keep, row_maximum(scores, keep)))


class Softmax1(Weight):
    """Softmax with one more in the denominator: a row may keep weight to itself."""

    name = "softmax1"
    formula = r"w_{ij} = e^{s_{ij}} / (1 + \sum_k e^{s_{ik}})"
    source = "Attention Is Off By One (Miller 2023)"
    facts = Facts(nonnegative=True, bounded=True, monotone=True)

    def weigh(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        top = row_maximum(scores, keep).clamp_min(0)
        return over_sum(shifted_exp(scores, keep, top), torch.exp(-top))


class Sink(Weight):
    """Softmax with a learned logit for each head that takes weight and gives no value."""

    name = "sink"
    formula = r"w_{ij} = e^{s_{ij}} / (e^{z_h} + \sum_k e^{s_{ik}})"
    source = "gpt-oss (2025), learned sinks; z starts at 0"
    facts = Facts(nonnegative=True, bounded=True, monotone=True)
    needs_setup = True

    def setup(self, sizes: Sizes) -> Sink:
        self.logit = nn.Parameter(torch.zeros(sizes.heads, 1, 1))
        return self

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.logit)

    def matches_heads(self, heads: int) -> None:
        if not hasattr(self, "logit"):
            raise setup_error(self)
        if self.logit.shape[0] != heads:
            raise ArgumentError(
                f"sink was set up for {self.logit.shape[0]} heads, but the query has {heads}"
            )

    def weigh(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        logit = self.logit.to(scores.dtype)
        top = torch.maximum(row_maximum(scores, keep), logit.detach())
        return over_sum(shifted_exp(scores, keep, top), torch.exp(logit - top))


class Softpick(Weight):
    """Rectified softmax: a score below zero weighs nothing but stays in the denominator."""

    name = "softpick"
    formula = r"w_{ij} = \max(e^{s_{ij}} - 1, 0) / \sum_k |e^{s_{ik}} - 1|"
    source = "Zuhri 2025 (2504.20966)"
    facts = Facts(nonnegative=True, bounded=True, monotone=True, zero_at_zero=True)

    def weigh(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        top = row_maximum(scores, keep).clamp_min(0)
        # e^s − 1, times e^−top. Near zero expm1 keeps the digits that a difference would lose.
        near = scores.abs() < 1
        small = torch.expm1(torch.where(near, scores, 0)) * torch.exp(-top)
        lifted = torch.where(near, small, torch.exp(scores - top) - torch.exp(-top))
        return over_sum(F.relu(lifted), keep=keep, masses=lifted.abs())


class Cog(Weight):
    """Softmax of the sizes of the scores, with the signs of the scores."""

    name = "cog"
    formula = r"w_{ij} = \mathrm{sign}(s_{ij})\, e^{|s_{ij}|} / \sum_k e^{|s_{ik}|}"
    source = "Cog attention (2411.07176)"
    facts = Facts(bounded=True, odd=True, monotone=True, zero_at_zero=True)

    def weigh(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        sizes = scores.abs()
        shares = over_sum(shifted_exp(sizes, keep, row_maximum(sizes, keep)))
        return scores.sign() * shares


class Sparsemax(Weight):
    """The nearest point of the simplex: weights sum to one and low scores weigh exactly zero."""

    name = "sparsemax"
    formula = r"w_{ij} = \max(s_{ij} - \tau_i, 0),\quad \textstyle\sum_j w_{ij} = 1"
    source = "Martins and Astudillo 2016 (1602.02068)"
    facts = Facts(nonnegative=True, rows_sum_to_one=True, bounded=True, monotone=True)

    def weigh(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        if not scores.shape[-1]:
            return scores
        # No score that lies further below the top than 1 has weight; cut, it spoils no sum.
        shifted = (scores - row_maximum(scores, keep)).clamp_min(-2)
        ordered, seen = descending(shifted, keep)
        rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
        total = ordered.cumsum(-1)
        support = ((1 + rank * ordered > total) & seen).sum(-1, keepdim=True).clamp_min(1)
        threshold = (total.gather(-1, support - 1) - 1) / support
        return F.relu(shifted - threshold).masked_fill(torch.isneginf(scores), 0)


class Entmax15(Weight):
    """Between softmax and sparsemax: α-entmax with α = 1.5, by sorting, exact."""

    name = "entmax15"
    formula = r"w_{ij} = \max(s_{ij}/2 - \tau_i, 0)^2,\quad \textstyle\sum_j w_{ij} = 1"
    source = "Peters 2019 (1905.05702)"
    facts = Facts(nonnegative=True, rows_sum_to_one=True, bounded=True, monotone=True)

    def weigh(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        if not scores.shape[-1]:
            return scores
        # No half score that lies further below the top than 1 has weight; cut, it spoils no sum.
        shifted = ((scores - row_maximum(scores, keep)) / 2).clamp_min(-2)
        ordered, seen = descending(shifted, keep)
        rank = torch.arange(1, scores.shape[-1] + 1, device=scores.device, dtype=scores.dtype)
        mean = ordered.cumsum(-1) / rank
        spread = (ordered.square().cumsum(-1) / rank - mean.square()).clamp_min(0) * rank
        inside = (1 - spread) / rank
        threshold = mean - torch.where(inside > 0, torch.where(inside > 0, inside, 1).sqrt(), 0)
        support = ((threshold <= ordered) & seen).sum(-1, keepdim=True).clamp_min(1)
        weights = F.relu(shifted - threshold.gather(-1, support - 1)).square()
        return weights.masked_fill(torch.isneginf(scores), 0)


# --- weights that each score earns on its own ---------------------------------------------


class Sigmoid(ElementwiseWeight):
    """A logistic curve for each pair; the bias −log n starts a row near a total weight of one."""

    name = "sigmoid"
    formula = r"w_{ij} = \sigma(s_{ij} + b),\quad b = -\log n_i"
    source = "Ramapuram 2024 (2409.04431)"
    facts = Facts(nonnegative=True, bounded=True, monotone=True)
    spelled_out = ("bias",)

    def __init__(self, bias: float | str = "-log_n") -> None:
        super().__init__()
        self.bias = bias if bias == "-log_n" else number("sigmoid(bias): '-log_n' or", bias)  # type: ignore[arg-type]

    def value(self, scores: Tensor, n: Tensor) -> Tensor:
        return torch.sigmoid(scores - n.log() if self.bias == "-log_n" else scores + self.bias)  # type: ignore[operator]


class Tanh(ElementwiseWeight):
    """Signed weights, and a query may attend to nothing.

    n counts the keys that the row may see, so outputs keep their scale as rows grow.
    """

    name = "tanh"
    formula = r"w_{ij} = \tanh(s_{ij}) / n_i"
    source = "the question itself; signed weights also in CoDA (Tay 2019)"
    facts = Facts(bounded=True, odd=True, monotone=True, zero_at_zero=True)

    def value(self, scores: Tensor, n: Tensor) -> Tensor:
        return scores.tanh() / n


class Relu(PowerLength):
    """Scores above zero, over n^length_power."""

    name = "relu"
    formula = r"w_{ij} = \max(s_{ij}, 0) / n_i^{p}"
    source = "Wortsman 2023 (2309.08586)"
    facts = Facts(nonnegative=True, degree=1, monotone=True, zero_at_zero=True)

    def curve(self, scores: Tensor) -> Tensor:
        return F.relu(scores)


class Relu2(PowerLength):
    """Squares of the scores above zero, over n^length_power."""

    name = "relu2"
    formula = r"w_{ij} = \max(s_{ij}, 0)^2 / n_i^{p}"
    source = "GAU (Hua 2022, 2202.10447)"
    facts = Facts(nonnegative=True, degree=2, monotone=True, zero_at_zero=True)

    def curve(self, scores: Tensor) -> Tensor:
        return F.relu(scores).square()


class Silu(PowerLength):
    """SiLU of the score over n^length_power, as in sequential recommenders."""

    name = "silu"
    formula = r"w_{ij} = \mathrm{silu}(s_{ij}) / n_i^{p}"
    source = "HSTU (Zhai 2024, 2402.17152)"
    facts = Facts(zero_at_zero=True)

    def curve(self, scores: Tensor) -> Tensor:
        return F.silu(scores)


class Gelu(PowerLength):
    """GELU of the score over n^length_power."""

    name = "gelu"
    formula = r"w_{ij} = \mathrm{gelu}(s_{ij}) / n_i^{p}"
    source = "kin of relu attention; open_lm left it out for a NaN that came from its mask"
    facts = Facts(zero_at_zero=True)

    def curve(self, scores: Tensor) -> Tensor:
        return F.gelu(scores)


class Softplus(PowerLength):
    """log(1 + e^s) over n^length_power."""

    name = "softplus"
    formula = r"w_{ij} = \log(1 + e^{s_{ij}}) / n_i^{p}"
    source = "open_lm and ReaLLM-Forge list it among softmax's replacements"
    facts = Facts(nonnegative=True, monotone=True)

    def curve(self, scores: Tensor) -> Tensor:
        return F.softplus(scores, threshold=40)  # torch's own 20 costs float64 seven digits


class Identity(PowerLength):
    """The score itself: attention without a weight function, cubic in x with linear q, k, v."""

    name = "identity"
    formula = r"w_{ij} = s_{ij} / n_i^{p}"
    source = "the claim 'just linear transformations', taken at its word"
    facts = Facts(odd=True, degree=1, monotone=True, zero_at_zero=True, linear=True)

    def curve(self, scores: Tensor) -> Tensor:
        return scores


class Linear(Weight):
    """Scores over their sum: linear attention, where the maps of q and k keep scores positive.

    `normalise=false` leaves the sum out. A row whose sum is exactly zero weighs nothing.
    """

    name = "linear"
    formula = r"w_{ij} = s_{ij} / \sum_k s_{ik}"
    source = "Katharopoulos 2020 (2006.16236)"
    spelled_out = ("normalise",)

    def __init__(self, normalise: bool = True) -> None:
        super().__init__()
        self.normalise = flag("linear(normalise)", normalise)

    @property
    def facts(self) -> Facts:  # type: ignore[override]
        if self.normalise:
            return Facts(rows_sum_to_one=True, degree=0, zero_at_zero=True)
        return Facts(odd=True, degree=1, monotone=True, zero_at_zero=True, linear=True)

    def weigh(self, scores: Tensor, keep: Tensor | None) -> Tensor:
        return over_sum(scores) if self.normalise else scores


# --- pieces that rows share -----------------------------------------------------------------


def row_maximum(scores: Tensor, keep: Tensor | None) -> Tensor:
    """The largest visible score of each row (…, queries, 1), without gradient.

    0 where a row sees nothing or only −∞, so that subtracting it is always safe.
    """
    if not scores.shape[-1]:
        return scores.new_zeros((*scores.shape[:-1], 1))
    visible = scores.detach() if keep is None else scores.detach().masked_fill(~keep, -torch.inf)
    top = visible.amax(-1, keepdim=True)
    return top.masked_fill(torch.isneginf(top), 0)


def shifted_exp(scores: Tensor, keep: Tensor | None, shift: Tensor) -> Tensor:
    """exp(scores − shift), zero where hidden; hidden scores are not exponentiated."""
    if keep is None:
        return torch.exp(scores - shift)
    return torch.exp((scores - shift).masked_fill(~keep, -torch.inf))


def over_sum(
    parts: Tensor,
    extra: Tensor | None = None,
    *,
    keep: Tensor | None = None,
    masses: Tensor | None = None,
) -> Tensor:
    """parts over the row sum of masses (parts themselves where none are given) plus extra.

    A row whose sum is exactly zero gives zeros. `keep` leaves hidden masses out of the sum.
    """
    masses = parts if masses is None else masses
    if keep is not None:
        masses = masses.masked_fill(~keep, 0)
    total = masses.sum(-1, keepdim=True)
    if extra is not None:
        total = total + extra
    nothing = total == 0
    return (parts / total.masked_fill(nothing, 1)).masked_fill(nothing, 0)


def descending(scores: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Visible scores of each row in falling order, and which ranks are visible.

    Hidden scores come last and read 0, so that running sums over them stay finite.
    """
    if keep is None:
        return scores.sort(-1, descending=True).values, torch.ones_like(scores, dtype=torch.bool)
    hidden = scores.masked_fill(~keep, -torch.inf)
    ordered = hidden.sort(-1, descending=True).values
    count = keep.sum(-1, keepdim=True)
    seen = torch.arange(scores.shape[-1], device=scores.device) < count
    return ordered.masked_fill(~seen, 0), seen.expand_as(ordered)

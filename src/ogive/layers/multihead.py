"""MultiheadAttention: torch.nn's layer, argument for argument, with sites."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import ArgumentError, ArgumentTypeError, unknown
from ogive.kernels import AuxRequest, attention, impls
from ogive.kernels.finite import guarded_mix
from ogive.layers import checks
from ogive.layers.chain import Plan, install, plan, run, walk
from ogive.layers.torch_masks import Masks, check_inputs, read_masks
from ogive.parts.part import Sizes, build
from ogive.parts.presets import sites_from
from ogive.parts.scores import score_from
from ogive.parts.sites import Sites
from ogive.parts.weights import Weight


class MultiheadAttention(nn.Module):
    """`torch.nn.MultiheadAttention` in which every site after the projections takes a part.

    Constructor, call, parameters, state dict and starting values (under one seed) are those of
    `torch.nn.MultiheadAttention`, and with `Sites()` so are the numbers, with these exceptions:

    - A row that may attend to nothing gives zeros before the output projection, and weights of
      zero, where PyTorch gives NaN.
    - What `key_padding_mask` hides influences nothing, NaN included.
    - Dropout draws other weights from the same seed: each depends on its place alone.
    - float entries at or below finfo.min/2 hide their pair, as everywhere in Ogive.
    - It is no subclass: `isinstance(layer, nn.MultiheadAttention)` is False, so that what looks for
      PyTorch's class (its quantisation, say) lets this one be, and does not compute past its sites.
      For the same reason `_qkv_same_embed_dim` is False, and PyTorch's fused paths are not taken.
    - torch.jit.script refuses it.

    **This is the one class of Ogive whose bool masks mean True = may NOT attend.** A mask that
    hides every key of the batch, or is a causal mask of the other polarity, is warned about.

    The four projections are always `linear`, so that PyTorch's checkpoints load strictly; parts
    that learn parameters add theirs (`gate_proj`, `query_rmsnorm`, `score`, `weight`). The learned
    key of `add_bias_kv` and the zero key of `add_zero_attn` join after the key and value chains.

    Args:
        embed_dim: features of queries and of the output.
        num_heads: heads; they divide embed_dim.
        dropout: probability from 0 to 1 of dropping a weight, in training; 1 leaves the output
            projection's bias, and gradients of zero before it, as in PyTorch.
        bias: whether the four projections add a bias.
        add_bias_kv: append a learned key and value to every sequence.
        add_zero_attn: append a key and value of zeros to every sequence.
        kdim, vdim: features of keys and values; None for embed_dim.
        batch_first: (batch, length, features) if True, (length, batch, features) if False.
        device, dtype: of the parameters.
        sites: what sits where: `Sites`, its written form, or a preset's name.
        impl: what runs the operation, "auto" or a name from `ogive.impls()`.

    Raises:
        UnknownName, ArgumentError: a site, part or size that does not fit.
    """

    in_proj_weight: Tensor | None
    q_proj_weight: Tensor
    k_proj_weight: Tensor
    v_proj_weight: Tensor
    in_proj_bias: Tensor | None
    bias_k: Tensor | None
    bias_v: Tensor | None

    __prepare_scriptable__ = checks.refuse_script  # torch.jit.script asks for it

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        *,
        sites: Sites | str = Sites(),  # noqa: B008  (frozen)
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.embed_dim = checks.whole("embed_dim", embed_dim)
        self.num_heads = checks.whole("num_heads", num_heads)
        if embed_dim % num_heads:
            raise ArgumentError(f"embed_dim={embed_dim} does not divide into num_heads={num_heads}")
        self.head_dim = embed_dim // num_heads
        self.kdim = checks.whole("kdim", embed_dim if kdim is None else kdim)
        self.vdim = checks.whole("vdim", embed_dim if vdim is None else vdim)
        self.dropout = _probability(dropout)
        self.batch_first = batch_first
        self.add_zero_attn = add_zero_attn
        self.sites = sites_from(sites)
        if impl not in {*impls(), "auto"}:
            raise unknown("impl", str(impl), [*impls(), "auto"])
        self.impl = impl
        self._make_projections(bias, add_bias_kv, {"device": device, "dtype": dtype})
        self._reset_parameters()
        self._install_parts(bias)
        self._parts().to(device=device, dtype=dtype)

    @property
    def _qkv_same_embed_dim(self) -> bool:
        # TransformerEncoderLayer asks this before it hands the parameters to a fused softmax, past
        # this layer's sites (and into NaN at padded rows). False keeps it calling the layer.
        return False

    def _make_projections(self, bias: bool, add_bias_kv: bool, where: dict[str, Any]) -> None:
        wide = self.embed_dim

        def parameter(name: str, *shape: int, made: bool = True) -> None:
            value = nn.Parameter(torch.empty(shape, **where)) if made else None
            self.register_parameter(name, value)

        packed = self.kdim == self.vdim == wide
        parameter("q_proj_weight", wide, wide, made=not packed)
        parameter("k_proj_weight", wide, self.kdim, made=not packed)
        parameter("v_proj_weight", wide, self.vdim, made=not packed)
        parameter("in_proj_weight", 3 * wide, wide, made=packed)
        parameter("in_proj_bias", 3 * wide, made=bias)
        self.out_proj = nn.Linear(wide, wide, bias=bias, **where)
        parameter("bias_k", 1, 1, wide, made=add_bias_kv)
        parameter("bias_v", 1, 1, wide, made=add_bias_kv)

    def _reset_parameters(self) -> None:
        """Start as torch.nn.MultiheadAttention does, drawing in its order."""
        for name in ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            if getattr(self, name) is not None:
                nn.init.xavier_uniform_(getattr(self, name))
        if self.in_proj_bias is not None:
            nn.init.zeros_(self.in_proj_bias)
            nn.init.zeros_(self.out_proj.bias)
        if self.bias_k is not None and self.bias_v is not None:
            nn.init.xavier_normal_(self.bias_k)
            nn.init.xavier_normal_(self.bias_v)

    merge_masks = nn.MultiheadAttention.merge_masks

    def reset_parameters(self) -> None:
        """Start the projections anew; parts and `out_proj` start themselves."""
        self._reset_parameters()

    def _install_parts(self, bias: bool) -> None:
        """The maps of every site, without the projections, which have PyTorch's names."""
        sites, head = self.sites, self.head_dim
        plans = {site: plan(sites, site, head) for site in ("query", "key", "value", "mixed")}
        plans["output"] = plan(sites, "output", self.embed_dim)
        self._keeps_projections(plans)
        heads, width = self.num_heads, self.embed_dim

        def maps(site: str, reads: int) -> Any:
            first = 0 if site == "mixed" else 1
            sizes = Sizes(reads, heads, head, bias)
            if site == "output":
                sizes = Sizes(width, 1, width, bias)
            return install(self, site, plans[site].parts[first:], reads, sizes)

        self._query, self._key = maps("query", width), maps("key", self.kdim)
        self._value, self._mixed = maps("value", self.vdim), maps("mixed", width)
        self._output = maps("output", width)
        meeting = Sizes(width, heads, plans["query"].final, bias)
        self.score = score_from(sites.score).setup(meeting)
        self.weight = cast(Weight, build("weight", sites.weight).setup(meeting))

    def _keeps_projections(self, plans: dict[str, Plan]) -> None:
        """Raise where a site asks for other projections than those of PyTorch's checkpoints."""
        instead = "MultiheadAttention keeps PyTorch's projections: ogive.Attention takes these"
        for site in ("query", "key", "value", "output"):
            nominal = self.embed_dim if site == "output" else self.head_dim
            first = self.sites.chain(site)[0]
            if str(first) != "linear":
                raise ArgumentError(f"{site}={first} replaces a projection, but {instead}")
            if plans[site].projected != nominal:
                raise ArgumentError(
                    f"the sites {self.sites!s} need a {site} projection {plans[site].projected} "
                    f"wide, not {nominal}, but {instead}"
                )
        joined = walk(plans["mixed"].parts, plans["value"].final)
        ends = {"mixed": (joined, self.head_dim), "output": (plans["output"].final, self.embed_dim)}
        for site, (came, fits) in ends.items():
            if came != fits:
                raise ArgumentError(
                    f"the site {site!r} ends {came} wide, not {fits}, but {instead}"
                )
        query, key = plans["query"].final, plans["key"].final
        if query != key:
            raise ArgumentError(
                f"query ends {query} wide and key {key}: they must end equally wide"
            )

    def _parts(self) -> nn.ModuleList:
        return nn.ModuleList(m for name, m in self.named_children() if name != "out_proj")

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from query to key and value.

        Args:
            query: (length, batch, embed_dim), (batch, length, embed_dim) with `batch_first`, or
                (length, embed_dim) without a batch; or a nested tensor.
            key, value: likewise, with kdim and vdim features and a length of their own.
            key_padding_mask: (batch, keys), bool, **True = may not attend**, or float, added to
                the score.
            need_weights: return the weights too, which costs queries × keys of memory.
            attn_mask: (queries, keys) or (batch · heads, queries, keys), bool, **True = may not
                attend**, or float, added to the score.
            average_attn_weights: return the mean of the weights over heads, not each.
            is_causal: a hint that `attn_mask` is the causal mask, which must come along. As in
                PyTorch the hint is believed, and takes the mask's place, where there is no
                padding mask and no weights are asked for.

        Returns:
            The output in the query's layout, and weights (batch, queries, keys), (batch, heads,
            queries, keys) unless averaged, or None. Weights are those after dropout.

        Raises:
            ArgumentError, ArgumentTypeError: an argument that does not fit.
        """
        if query.is_nested:
            return self._forward_nested(query, key, value, key_padding_mask, attn_mask, is_causal)
        check_inputs(self, query, key, value)
        batched = query.dim() == 3
        same = query is key
        q, k, v = (self._batch_first(t, batched) for t in (query, key, value))
        masks = read_masks(
            q, k, self.num_heads, key_padding_mask, attn_mask, is_causal, need_weights
        )
        out, weights = self._attend(q, k, v, masks, same, need_weights)
        if weights is not None and average_attn_weights:
            weights = weights.mean(1)
        if not batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return out if self.batch_first else out.transpose(0, 1), weights

    def _batch_first(self, x: Tensor, batched: bool) -> Tensor:
        if not batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, masks: Masks, same: bool, wanted: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Batch-first sequences to the output and, where wanted, weights of all heads."""
        visible = masks.visible
        key, value = _without_hidden_nan(key, visible), _without_hidden_nan(value, visible)
        # In self-attention a hidden position is hidden as a query too, or its NaN would reach
        # the gradients of the projection.
        seen = visible if same else None
        query = _without_hidden_nan(query, seen)
        q, k, v = self._project(query, key, value)
        q = run(self, self._query, q, query, seen).transpose(1, 2)
        k = run(self, self._key, k, key, visible).transpose(1, 2)
        v = run(self, self._value, v, value, visible).transpose(1, 2)
        k, v, pairs = self._with_added_keys(k, v, masks.pairs)
        mixed, weights = self._operate(q, k, v, pairs, masks.is_causal, wanted)
        heads = run(self, self._mixed, mixed.transpose(1, 2), query, seen)
        out = self.out_proj(heads.flatten(2)).unsqueeze(2)
        return run(self, self._output, out, query, seen).squeeze(2), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> list[Tensor]:
        """Each input through its projection, as (batch, length, heads, head width)."""
        packed = self.in_proj_weight
        weights = (
            (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            if packed is None
            else packed.chunk(3)
        )
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        inputs = (query, key, value)
        return [
            F.linear(x, w, b).unflatten(-1, (self.num_heads, self.head_dim))
            for x, w, b in zip(inputs, weights, biases, strict=True)
        ]

    def _with_added_keys(
        self, key: Tensor, value: Tensor, pairs: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Keys and values (batch, heads, keys, width) with those that the options append."""
        before = key.shape[2]
        if self.bias_k is not None and self.bias_v is not None:
            key = _joined(key, self._of_heads(self.bias_k))
            value = _joined(value, self._of_heads(self.bias_v))
        if self.add_zero_attn:
            key = _joined(key, key.new_zeros(1, 1, 1, key.shape[-1]))
            value = _joined(value, value.new_zeros(1, 1, 1, value.shape[-1]))
        added = key.shape[2] - before
        if added and pairs is not None:
            pairs = F.pad(pairs, (0, added), value=1 if pairs.dtype == torch.bool else 0)
        return key, value, pairs

    def _of_heads(self, learned: Tensor) -> Tensor:
        return learned.view(1, self.num_heads, 1, self.head_dim)

    def _operate(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        pairs: Tensor | None,
        is_causal: bool,
        wanted: bool,
    ) -> tuple[Tensor, Tensor | None]:
        dropout = self.dropout if self.training else 0.0
        later = wanted or dropout == 1  # what drops all weights divides by 1 − 1 = 0
        out = attention(
            *_of_one_dtype(query, key, value),
            score=self.score,
            weight=self.weight,
            attn_mask=pairs,
            is_causal=is_causal,
            q_offset=0 if is_causal else None,
            dropout_p=0.0 if later else dropout,
            return_aux=AuxRequest(weights=True) if wanted else None,
            impl=self.impl,
        )
        if not wanted:
            return F.dropout(cast(Tensor, out), dropout) if later else cast(Tensor, out), None
        mixed, aux = cast(tuple, out)
        weights = aux.weights
        if dropout:  # PyTorch returns the weights that it used: drop them here, and mix once more
            weights = F.dropout(weights, dropout)
            everything = weights.new_ones(weights.shape[-2:], dtype=torch.bool)
            keep = everything if pairs is None else _visible_pairs(pairs)
            mixed = guarded_mix(weights, value.to(weights.dtype), keep).to(mixed.dtype)
        return mixed, weights.to(mixed.dtype)

    def _forward_nested(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        attn_mask: Tensor | None,
        is_causal: bool,
    ) -> tuple[Tensor, None]:
        """Sequences of unequal lengths, as TransformerEncoder passes them in evaluation."""
        if key is not query or value is not query:
            raise ArgumentError("a nested tensor fits where query, key and value are the same one")
        if key_padding_mask is not None or attn_mask is not None or is_causal:
            raise ArgumentError("a nested tensor says its own lengths: it takes no mask")
        lengths = [len(sequence) for sequence in query.unbind()]
        x = query.to_padded_tensor(0.0)
        at = torch.arange(x.shape[1], device=x.device)
        visible = at < torch.tensor(lengths, device=x.device)[:, None]
        out, _ = self._attend(x, x, x, Masks(visible[:, None, None], visible), True, False)
        rows = [sequence[:length] for sequence, length in zip(out, lengths, strict=True)]
        return torch.nested.as_nested_tensor(rows), None

    def extra_repr(self) -> str:
        """Sizes and sites, as a reader would write them."""
        first = ", batch_first=True" if self.batch_first else ""
        return f"{self.embed_dim}, {self.num_heads}{first}, sites={str(self.sites)!r}"


def _probability(dropout: object) -> float:
    if isinstance(dropout, bool) or not isinstance(dropout, int | float):
        raise ArgumentTypeError(f"dropout takes a number from 0 to 1, not {dropout!r}")
    if not 0 <= dropout <= 1:
        raise ArgumentError(f"dropout takes a number from 0 to 1, not {dropout!r}")
    return float(dropout)


def _joined(sequence: Tensor, one: Tensor) -> Tensor:
    one = one.to(sequence.dtype).expand(*sequence.shape[:2], 1, -1)
    return torch.cat([sequence, one], 2)


def _of_one_dtype(*tensors: Tensor) -> list[Tensor]:
    """Under autocast a norm gives float32 and a projection half precision."""
    dtype = tensors[0].dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    return [tensor.to(dtype) for tensor in tensors]


def _visible_pairs(pairs: Tensor) -> Tensor:
    return pairs if pairs.dtype == torch.bool else ~(pairs <= torch.finfo(pairs.dtype).min / 2)


def _without_hidden_nan(x: Tensor, visible: Tensor | None) -> Tensor:
    """x with zeros for NaN and infinities at hidden positions, where even 0 · NaN would show."""
    if visible is None:
        return x
    return x.masked_fill(~(visible.unsqueeze(-1) | x.isfinite()), 0)

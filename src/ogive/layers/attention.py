"""Attention: chains, the operation, chains, in reading order."""

from typing import cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ogive.errors import ArgumentError, unknown
from ogive.kernels import Aux, AuxRequest, attention, impls
from ogive.kernels.checks import check_dropout, check_flag, check_mask, check_window
from ogive.layers import checks
from ogive.layers.cache import Cache
from ogive.layers.chain import install, plan, run, walk
from ogive.layers.positions import PairBias, Rotary, position_of_layer
from ogive.parts.part import Sizes, build
from ogive.parts.presets import sites_from
from ogive.parts.scores import score_from
from ogive.parts.sites import Sites
from ogive.parts.weights import Weight


class Attention(nn.Module):
    """Multi-head attention in which every site takes a part.

    Self-attention (`layer(x)`) and cross-attention (`layer(x, memory)`) alike. With `Sites()` it
    computes softmax(q kᵀ/√d) v between four linear projections.

    Parameters are named `q_proj`, `k_proj`, `v_proj`, `o_proj`; a gate at the mixed site
    `gate_proj`; other maps after their site (`query_rmsnorm`, `query_rmsnorm_2`); then `score`,
    `weight` and `positions`.

    Args:
        width: features of x and of the output.
        heads: query heads.
        kv_heads: key and value heads, each shared by heads/kv_heads query heads (1: multi-query,
            fewer than heads: grouped-query); None for as many as heads.
        head_width: features per head that the chains nominally give; None for width/heads.
        memory_width: features of the memory in cross-attention; None for width.
        sites: what sits where: `Sites`, its written form, or a preset's name. A map at the mixed
            site that wants another width (`glu`) gets it from the value projection.
        positions: `rope`, `alibi` or `relative`, in written form (`rope(base=500000)`); rotary
            positions turn queries and keys after their chains. Self-attention only.
        bias: whether linear projections add a bias.
        dropout: probability of dropping a weight, in training.
        window_size: (left, right) neighbours that a query sees beside itself, None for no limit.
        impl: what runs the operation, "auto" or a name from `ogive.impls()`.

    Raises:
        UnknownName, ArgumentError: a site, part, position or size that does not fit.
    """

    __prepare_scriptable__ = checks.refuse_script  # torch.jit.script asks for it

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_width: int | None = None,
        memory_width: int | None = None,
        sites: Sites | str = Sites(),  # noqa: B008  (frozen)
        positions: str | None = None,
        bias: bool = False,
        dropout: float = 0.0,
        window_size: tuple[int | None, int | None] | None = None,
        impl: str = "auto",
    ) -> None:
        super().__init__()
        self.width = checks.whole("width", width)
        self.heads = checks.whole("heads", heads)
        self.kv_heads = checks.whole("kv_heads", heads if kv_heads is None else kv_heads)
        per_head = checks.share(width, heads) if head_width is None else head_width
        self.head_width = checks.whole("head_width", per_head)
        reads = width if memory_width is None else memory_width
        self.memory_width = checks.whole("memory_width", reads)
        if heads % self.kv_heads:
            raise ArgumentError(f"heads={heads} do not divide into groups of kv_heads={kv_heads}")
        self.sites = sites_from(sites)
        self.dropout = check_dropout(dropout)
        self.window_size = check_window(window_size)
        if impl not in {*impls(), "auto"}:
            raise unknown("impl", str(impl), [*impls(), "auto"])
        self.impl = impl
        self._build(check_flag("bias", bias), positions)

    def _build(self, bias: bool, positions: str | None) -> None:
        """Walk the widths, then make the parts in the order in which forward runs them."""
        sites = self.sites
        query = plan(sites, "query", self.head_width)
        key = plan(sites, "key", self.head_width)
        mixed = plan(sites, "mixed", self.head_width)
        value = plan(sites, "value", mixed.projected)
        output = plan(sites, "output", self.width)
        self._must_meet(query.final, key.final, output.final)
        joined = self.heads * walk(mixed.parts, value.final)

        x, memory = self.width, self.memory_width
        into = {
            "query": Sizes(x, self.heads, query.projected, bias),
            "key": Sizes(memory, self.kv_heads, key.projected, bias),
            "value": Sizes(memory, self.kv_heads, value.projected, bias),
            "mixed": Sizes(x, self.heads, value.final, bias),
            "output": Sizes(x, 1, output.projected, bias),
        }
        self._query = install(self, "query", query.parts, x, into["query"])
        self._key = install(self, "key", key.parts, memory, into["key"])
        self._value = install(self, "value", value.parts, memory, into["value"])
        meeting = Sizes(x, self.heads, query.final, bias)
        position = position_of_layer(positions)
        self.positions = None if position is None else position.setup(meeting)
        self.score = score_from(sites.score).setup(meeting)
        self.weight = cast(Weight, build("weight", sites.weight).setup(meeting))
        self._mixed = install(self, "mixed", mixed.parts, x, into["mixed"])
        self._output = install(self, "output", output.parts, joined, into["output"])

    def _must_meet(self, query: int, key: int, output: int) -> None:
        if query != key:
            raise ArgumentError(
                f"query={self.sites.query!r} ends {query} wide per head and "
                f"key={self.sites.key!r} {key}: they must end equally wide"
            )
        if output != self.width:
            raise ArgumentError(
                f"output={self.sites.output!r} ends {output} wide, and the layer is {self.width}"
            )

    def forward(
        self,
        x: Float[Tensor, "b i w"],
        memory: Float[Tensor, "b j m"] | None = None,
        *,
        key_mask: Bool[Tensor, "b s"] | None = None,
        attn_mask: Tensor | None = None,
        attn_bias: Tensor | None = None,
        is_causal: bool = False,
        cache: Cache | None = None,
        return_aux: AuxRequest | None = None,
    ) -> Tensor | tuple[Tensor, Aux]:
        """Attend from x to itself or to a memory.

        Args:
            x: (batch, queries, width).
            memory: (batch, keys, memory width) for cross-attention; None attends to x.
            key_mask: bool (batch, keys), True = may attend. What it hides influences nothing,
                NaN included; maps that look at neighbours (`conv`) do not see it either.
            attn_mask: bool (True = may attend) or float, broadcastable to (batch, heads, queries,
                keys); tells the operation only, so neighbours in `conv` stay neighbours.
            attn_bias: float, differentiable, added to the scores, broadcastable likewise.
            is_causal: query i sees keys up to itself.
            cache: the layer's past, for decoding. In self-attention it needs `is_causal`, x is
                what is new, in pieces of any length, and masks count past and new keys. In
                cross-attention the first call fills it; later ones may leave the memory out.
            return_aux: statistics to return beside the output.

        Returns:
            (batch, queries, width); with `return_aux`, a pair of that and an `Aux`.

        Raises:
            ArgumentError, ArgumentTypeError: an argument that does not fit.

        Warns:
            MaskWarning: a mask that hides every key, or all but the future: of the other polarity?
        """
        crosses = memory is not None or (cache is not None and cache.memory is not None)
        self._check(x, memory, key_mask, attn_mask, is_causal, cache, crosses)
        visible = None if key_mask is None or crosses else key_mask[:, -x.shape[1] :]
        x = _without_hidden_nan(x, visible)
        read = self._read_memory if crosses else self._read
        query, key, value = read(x, memory, key_mask, cache)
        out = attention(
            query,
            key,
            value,
            score=self.score,
            weight=self.weight,
            attn_mask=_mask(query, key, _kept(key_mask, cache), _kept(attn_mask, cache)),
            attn_bias=self._bias(query, key, _kept(attn_bias, cache), is_causal),
            is_causal=is_causal,
            q_offset=self._offset(query, key, crosses, is_causal, cache),
            window_size=self.window_size,
            dropout_p=self.dropout if self.training else 0.0,
            enable_gqa=self.kv_heads != self.heads,
            return_aux=return_aux,
            impl=self.impl,
        )
        mixed, aux = cast(tuple, out) if return_aux is not None else (out, None)
        y = self._write(cast(Tensor, mixed), x, visible, cache)
        if cache is not None:
            reach = None if crosses else self.window_size[0]
            cache.advance(x.shape[1], key, value, reach, memory)
        return y if return_aux is None else (y, cast(Aux, aux))

    def _read(
        self, x: Tensor, memory: Tensor | None, key_mask: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of x (batch, heads, length, width), past keys first."""
        visible = None if key_mask is None else key_mask[:, -x.shape[1] :]
        query = run(self, self._query, x, x, visible, cache)
        key = run(self, self._key, x, x, visible, cache)
        value = run(self, self._value, x, x, visible, cache)
        if isinstance(self.positions, Rotary):
            start = 0 if cache is None else cache.length
            query, key = self.positions.turn(query, start), self.positions.turn(key, start)
        query, key, value = _by_heads(query, key, value)
        if cache is not None:
            key, value = cache.joined(key, value)
        return query, key, value

    def _read_memory(
        self, x: Tensor, memory: Tensor | None, key_mask: Tensor | None, cache: Cache | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of x, keys and values of the memory, from the cache where it holds them."""
        query = run(self, self._query, x, x, None, cache)
        if cache is not None and cache.keys is not None:
            return query.transpose(1, 2), cache.keys, cast(Tensor, cache.values)
        memory = _without_hidden_nan(cast(Tensor, memory), key_mask)
        key = run(self, self._key, memory, memory, key_mask)
        return _by_heads(query, key, run(self, self._value, memory, memory, key_mask))

    def _write(
        self, mixed: Tensor, x: Tensor, visible: Tensor | None, cache: Cache | None
    ) -> Tensor:
        """(batch, heads, queries, value width) through the mixed and output chains."""
        heads = run(self, self._mixed, mixed.transpose(1, 2), x, visible, cache)
        return run(self, self._output, heads.flatten(2), x, visible, cache).squeeze(2)

    def _bias(
        self, query: Tensor, key: Tensor, attn_bias: Tensor | None, is_causal: bool
    ) -> Tensor | None:
        if not isinstance(self.positions, PairBias):
            return attn_bias
        offset = key.shape[2] - query.shape[2]
        bias = self.positions.bias(query.transpose(1, 2), key.shape[2], offset, is_causal)
        return bias if attn_bias is None else bias + attn_bias

    def _offset(
        self, query: Tensor, key: Tensor, crosses: bool, is_causal: bool, cache: Cache | None
    ) -> int | None:
        """Where the first query stands among the keys, where that matters."""
        if cache is None or not (is_causal or self.window_size != (None, None)):
            return None
        return cache.length if crosses else key.shape[2] - query.shape[2]

    def _check(
        self,
        x: Tensor,
        memory: Tensor | None,
        key_mask: Tensor | None,
        attn_mask: Tensor | None,
        is_causal: bool,
        cache: Cache | None,
        crosses: bool,
    ) -> None:
        checks.check_sequence("x", x, self.width, self)
        keys = x.shape[1] + (0 if cache is None else cache.length)
        if crosses:
            keys = self._check_crossing(x, memory, is_causal, cache)
        elif self.memory_width != self.width:
            raise ArgumentError(
                f"memory is missing: this layer reads keys from a memory {self.memory_width} wide"
            )
        if cache is not None:
            cache.check(x, crosses)
            if not (crosses or is_causal):
                raise ArgumentError(
                    "cache in self-attention needs is_causal=True: outputs that were given "
                    "already cannot see later keys"
                )
        if key_mask is not None:
            checks.check_key_mask(key_mask, x.shape[0], keys)
            checks.warn_if_all_hidden("key_mask", key_mask, "may attend")
        if attn_mask is not None:
            checks.warn_if_only_future("attn_mask", attn_mask, "may attend")

    def _check_crossing(
        self, x: Tensor, memory: Tensor | None, is_causal: bool, cache: Cache | None
    ) -> int:
        """Check cross-attention's own arguments; returns how many keys there are."""
        if memory is not None:
            checks.check_sequence("memory", memory, self.memory_width, self)
            checks.check_memory(memory, x, cache)
        keys = memory.shape[1] if memory is not None else cast(Cache, cache).kept
        if self.positions is not None:
            raise ArgumentError(
                f"positions={str(self.positions)!r} places queries and keys on one line, and a "
                "memory is another sequence: cross-attention takes positions=None"
            )
        aligned = is_causal or self.window_size != (None, None)
        if aligned and cache is None and keys != x.shape[1]:
            what = "is_causal" if is_causal else f"window_size={self.window_size}"
            raise ArgumentError(
                f"{what} needs x and memory of equal length, not {x.shape[1]} and {keys}"
            )
        return keys

    def extra_repr(self) -> str:
        """Sizes and sites, as a reader would write them."""
        shared = f", kv_heads={self.kv_heads}" if self.kv_heads != self.heads else ""
        return f"{self.width}, {self.heads}{shared}, sites={str(self.sites)!r}"


def _by_heads(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(batch, length, heads, width) → (batch, heads, length, width), all of one dtype.

    They differ under autocast, where a norm gives float32 and a projection half precision.
    """
    if not query.dtype == key.dtype == value.dtype:
        dtype = torch.promote_types(torch.promote_types(query.dtype, key.dtype), value.dtype)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


def _without_hidden_nan(x: Tensor, visible: Tensor | None) -> Tensor:
    """x with zeros for NaN and infinities at hidden positions, where even 0 · NaN would show."""
    if visible is None:
        return x
    return x.masked_fill(~(visible.unsqueeze(-1) | x.isfinite()), 0)


def _mask(
    query: Tensor, key: Tensor, key_mask: Tensor | None, attn_mask: Tensor | None
) -> Tensor | None:
    """key_mask (batch, keys) and attn_mask as one mask of pairs."""
    if key_mask is None:
        return attn_mask
    keep = key_mask[:, None, None]
    if attn_mask is None:
        return keep
    check_mask(attn_mask, query, key.shape[2])
    if attn_mask.dtype == torch.bool:
        return attn_mask & keep
    return torch.where(keep, attn_mask, -torch.inf)


def _kept(pairs: Tensor | None, cache: Cache | None) -> Tensor | None:
    """A mask or bias over all keys, without the columns of those that a window let go."""
    if pairs is None or cache is None or not cache.dropped:
        return pairs
    return pairs if pairs.shape[-1] == 1 else pairs[..., cache.dropped :]

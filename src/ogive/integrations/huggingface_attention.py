"""The attention function that transformers calls, translated to Ogive's operation.

transformers passes what changes the maths by keyword. Each keyword is honoured here, known to
change nothing, or refused by name: none is ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from ogive.errors import ImplUnavailable
from ogive.kernels import Aux, AuxRequest, attention
from ogive.kernels.entrance import autocast
from ogive.parts.part import Part, Sizes, build
from ogive.parts.scores import Score, ScoreChain, ScoreMap, score_from
from ogive.parts.sites import Sites
from ogive.parts.weights import Sink, Weight

PARTS: dict[str, Callable[[Sites], Any]] = {
    "ogive_score": lambda sites: score_from(sites.score),
    "ogive_weight": lambda sites: build("weight", sites.weight),
}
"""Submodules of an attention module that hold learned parts: name → how to build one."""

# What transformers passes along and the maths does not depend on: bookkeeping of caches and
# outputs, positions that were applied already, and lengths for kernels without masks.
IDLE = frozenset(
    [
        "cache_position",
        "cu_seq_lens_k",
        "cu_seq_lens_q",
        "cu_seqlens",
        "deterministic",
        "hidden_states",
        "logits_to_keep",
        "max_length_k",
        "max_length_q",
        "max_seqlen",
        "num_items_in_batch",
        "output_attentions",
        "output_hidden_states",
        "past_key_values",
        "position_embeddings",
        "position_ids",
        "return_dict",
        "token_type_ids",
        "use_cache",
    ]
)


class AttentionFunction:
    """What `AttentionInterface` holds under one name.

    Attributes:
        sites: of which `score` and `weight` are used.
        name: under which it is registered, for messages.
        calls: how often it computed attention.
    """

    def __init__(self, sites: Sites, name: str) -> None:
        self.sites = sites
        self.name = name
        self.calls = 0
        self._score = cast(Score, PARTS["ogive_score"](sites))
        self._weight = cast(Weight, PARTS["ogive_weight"](sites))
        self._capped: dict[float, Score] = {}
        self._seen: dict[nn.Module, Sizes] | None = None
        self._collector = _collector()

    def __call__(
        self,
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        scaling: float | None = None,
        dropout: float = 0.0,
        is_causal: bool | None = None,
        position_bias: Tensor | None = None,
        softcap: float | None = None,
        s_aux: Tensor | None = None,
        sinks: Tensor | None = None,
        sliding_window: int | None = None,
        **others: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as transformers asks.

        Args:
            module: the attention module that calls.
            query: (batch, heads, queries, width), after positions.
            key, value: (batch, key/value heads, keys, width), not repeated.
            attention_mask: bool (True = may attend) or float, of pairs; None for all pairs, or
                the causal ones where the module is causal and there are several queries.
            scaling: factor on the score, for scores scaled by 1/√width; others have their own.
            dropout: probability of dropping a weight, in training.
            is_causal: overrides the module's own.
            position_bias: float, added to the score.
            softcap: scores are squeezed into (−softcap, softcap) before masks and biases.
            s_aux, sinks: a logit for each head that takes weight and gives no value.
            sliding_window: how many keys a query sees, itself included, where no mask says so.

        Returns:
            (batch, queries, heads, width), under autocast in the region's dtype, as SDPA gives it;
            and the weights in the query's dtype if they are asked for, by `output_attentions` here
            or by the forward pass around.

        Raises:
            ImplUnavailable: a keyword that would change the maths and cannot be honoured.
        """
        self._refuse_unknown(others, attention_mask)
        came = query.dtype
        # Rotary positions give float32 queries and keys beside half-precision values.
        query, key, value = autocast(query, key, value)
        self._count(module, query)
        causal = attention_mask is None and query.shape[2] > 1 and _causal(module, is_causal)
        if attention_mask is not None and attention_mask.shape[-1] > key.shape[2]:
            attention_mask = attention_mask[..., : key.shape[2]]
        score = self._capped_score(module, softcap)
        wanted = _wants_weights(module, others) or self._collects_weights()
        out = attention(
            query,
            key,
            value,
            score=score,
            weight=self._sunk_weight(module, s_aux if sinks is None else sinks, query),
            attn_mask=attention_mask,
            attn_bias=position_bias,
            is_causal=causal,
            q_offset=0 if causal else None,
            window_size=self._window(sliding_window, attention_mask, causal, key),
            scale=scaling if _takes_scaling(score) else None,
            dropout_p=dropout if module.training else 0.0,
            enable_gqa=query.shape[1] != key.shape[1],
            return_aux=AuxRequest(weights=True) if wanted else None,
        )
        mixed, aux = cast("tuple[Tensor, Aux]", out) if wanted else (cast(Tensor, out), None)
        weights = None if aux is None else cast(Tensor, aux.weights).to(came)
        return mixed.transpose(1, 2).contiguous(), weights

    @contextmanager
    def recording(self) -> Iterator[dict[nn.Module, Sizes]]:
        """Collect the modules that call, with the sizes their parts would need."""
        self._seen = {}
        try:
            yield self._seen
        finally:
            self._seen = None

    def _collects_weights(self) -> bool:
        """Whether the forward pass around collects weights, from what its modules return.

        Many models (GPT-2, OPT) keep `output_attentions` from their attention: hooks read weights
        off its output, as eager attention always returns them.
        """
        collector = self._collector
        if collector is None or (torch.compiler.is_compiling() and not collector.compiling):
            return False  # torch.compile traces no context variable
        return any(key.endswith("attentions") for key in collector.get() or ())

    def _count(self, module: nn.Module, query: Tensor) -> None:
        if torch.compiler.is_compiling():
            return  # a compiled graph would count its tracing, not its runs
        self.calls += 1
        if self._seen is not None:
            heads, width = query.shape[1], query.shape[3]
            self._seen[module] = Sizes(heads * width, heads, width)

    def _refuse_unknown(self, others: dict[str, Any], attention_mask: Tensor | None) -> None:
        for name, came in others.items():
            if name not in IDLE and came is not None and came is not False:
                raise ImplUnavailable(
                    f"{self.name!r} does not know what {name!r} does to attention, which this "
                    "model passes: its own attention may heed it"
                )
        packed = [name for name in ("cu_seq_lens_q", "cu_seqlens") if others.get(name) is not None]
        if packed and attention_mask is None:
            raise ImplUnavailable(
                f"{self.name!r} needs a mask where sequences are packed, beside {packed[0]!r}"
            )

    def _part(self, module: nn.Module, attribute: str, own: Part) -> Part:
        if not own.needs_setup:
            return own
        part = getattr(module, attribute, None)
        if part is None:
            raise ImplUnavailable(
                f"{own} learns parameters in each attention module, and this one has none: "
                f"ogive.integrations.huggingface.use(model, {str(self.sites)!r}) makes them"
            )
        return part

    def _capped_score(self, module: nn.Module, softcap: float | None) -> Score:
        score = cast(Score, self._part(module, "ogive_score", self._score))
        if softcap is None:
            return score
        if self._score.needs_setup:
            return _capped(score, softcap)
        if softcap not in self._capped:
            self._capped[softcap] = _capped(score, softcap)
        return self._capped[softcap]

    def _sunk_weight(self, module: nn.Module, sinks: Tensor | None, query: Tensor) -> Weight:
        weight = cast(Weight, self._part(module, "ogive_weight", self._weight))
        if sinks is None:
            return weight
        if self._weight.name != "softmax":
            raise ImplUnavailable(
                f"{self.name!r} has no place for the sinks (s_aux) of this model, which stand in "
                "the denominator of softmax"
            )
        heads = query.shape[1]
        if sinks.numel() != heads:
            raise ImplUnavailable(
                f"{self.name!r} takes one sink for each of {heads} heads, not {tuple(sinks.shape)}"
            )
        sink = Sink()
        # A view, not a parameter, so that gradients reach the model's own.
        sink.logit = sinks.reshape(heads, 1, 1)  # type: ignore[assignment]
        return sink

    def _window(
        self, sliding_window: int | None, mask: Tensor | None, causal: bool, key: Tensor
    ) -> tuple[int, None] | None:
        """The window where no mask holds it already."""
        if sliding_window is None or mask is not None or key.shape[2] <= sliding_window:
            return None
        if not causal:
            raise ImplUnavailable(
                f"{self.name!r} needs a mask for a sliding window that is not causal, and none came"
            )
        return sliding_window - 1, None


def _capped(score: Score, softcap: float) -> Score:
    """The score, then a softcap after whatever maps of scores it has."""
    cap = cast(ScoreMap, build("score", f"softcap({float(softcap)!r})"))
    if isinstance(score, ScoreChain):
        return ScoreChain(cast(Score, score.score), (*cast(Any, score.then), cap))
    return ScoreChain(score, (cap,))


def _collector() -> Any:
    """What transformers collects the outputs of modules in; None where there is no such thing."""
    try:
        from transformers.utils.output_capturing import _active_collector
    except ImportError:
        return None
    return _active_collector


def _causal(module: nn.Module, is_causal: bool | None) -> bool:
    return bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def _takes_scaling(score: Score) -> bool:
    first = score.score if isinstance(score, ScoreChain) else score
    return cast(Score, first).default_scale is None


def _wants_weights(module: nn.Module, others: dict[str, Any]) -> bool:
    asked = others.get("output_attentions")
    return bool(asked or getattr(getattr(module, "config", None), "output_attentions", False))

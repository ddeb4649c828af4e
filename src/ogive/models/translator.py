"""Translator: the encoder-decoder transformer of Attention Is All You Need, figure 1."""

from typing import Any

from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as F

from ogive.errors import ArgumentError
from ogive.kernels import AuxRequest
from ogive.kernels.checks import check_flag
from ogive.layers.checks import whole
from ogive.models.pairs import Pairs, check_source, check_target
from ogive.models.trunk import Embedding, Stack
from ogive.parts.sites import Sites


class Translator(Pairs):
    """Reads a sequence with self-attention, and writes another with causal and cross-attention.

    Args:
        source_vocabulary: tokens of sources.
        target_vocabulary: tokens of answers; None where both share one vocabulary, and so one
            embedding, as in the paper.
        width, depth, heads: of the encoder and of the decoder, as in `Decoder`.
        kv_heads, hidden, activation, norm, dropout, impl: likewise.
        norm_first, max_length: likewise; the paper's is `norm_first=False`.
        positions: likewise; the paper's are sinusoidal. Cross-attention has none of the rotary and
            relative ones.
        sites: what sits where in every attention layer: `Sites`, written form or preset's name.
        encoder_sites, memory_sites: in the encoder's self-attention and in cross-attention, where
            that differs from `sites`.
        tie_embeddings: whether the last projection is the answers' embedding, transposed.
        end: the token that starts and ends an answer.

    Raises:
        UnknownName, ArgumentError: an argument that does not fit.
    """

    kind = "translator"

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int | None,
        width: int,
        depth: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        hidden: int | None = None,
        sites: Sites | str = Sites(),  # noqa: B008  (frozen)
        encoder_sites: Sites | str | None = None,
        memory_sites: Sites | str | None = None,
        activation: str = "gelu",
        norm: str = "layernorm",
        norm_first: bool = True,
        positions: str | None = "sinusoidal",
        max_length: int | None = None,
        tie_embeddings: bool = True,
        end: int = 0,
        dropout: float = 0.0,
        impl: str = "auto",
    ) -> None:
        answers = source_vocabulary if target_vocabulary is None else target_vocabulary
        super().__init__(end, answers)
        whole("width", width)
        self.source_embedding = Embedding(whole("source_vocabulary", source_vocabulary), width)
        shared: dict[str, Any] = {
            "kv_heads": kv_heads,
            "hidden": hidden,
            "activation": activation,
            "norm": norm,
            "norm_first": norm_first,
            "positions": positions,
            "max_length": max_length,
            "dropout": dropout,
            "impl": impl,
        }
        reading = sites if encoder_sites is None else encoder_sites
        crossing = sites if memory_sites is None else memory_sites
        self.encoder = Stack(width, depth, heads, sites=reading, **shared)
        self.decoder = Stack(
            width, depth, heads, sites=sites, memory_width=width, memory_sites=crossing, **shared
        )
        self.target_embedding = None if target_vocabulary is None else Embedding(answers, width)
        tied = check_flag("tie_embeddings", tie_embeddings)
        self.head = None if tied else nn.Linear(width, answers, bias=False)

    def forward(
        self,
        source: Int64[Tensor, "b s"],
        target: Int64[Tensor, "b t"],
        *,
        source_mask: Bool[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "b t vocabulary"]:
        """Logits for the token after each one of the target.

        Args:
            source: (batch, source length) int64.
            target: (batch, length) int64: `end`, then the answer but for its own end; see
                `teacher`.
            source_mask: bool (batch, source length), True = a token, False = padding, anywhere;
                a source that is all padding says nothing, and attention to it gives 0.

        Returns:
            (batch, length, target vocabulary).
        """
        source, mask = check_source(source, source_mask, self.source_embedding.num_embeddings)
        check_target(target, source, self.target_vocabulary)
        memory = self.encoder.run(self.source_embedding(source), key_mask=mask)
        states = self.decoder.run(
            self._words(target), is_causal=True, memory=memory, memory_mask=mask
        )
        return self._logits(states)

    def weights(
        self,
        source: Int64[Tensor, "b s"],
        target: Int64[Tensor, "b t"],
        *,
        source_mask: Bool[Tensor, "b s"] | None = None,
        block: int = -1,
    ) -> Float[Tensor, "b h t s"]:
        """The rows of cross-attention in one block: (batch, heads, target length, source length).

        Args:
            source, target, source_mask: as in `forward`.
            block: which block of the decoder, counted as Python counts.
        """
        if not -len(self.decoder.blocks) <= block < len(self.decoder.blocks):
            raise ArgumentError(
                f"block={block!r} is none of the decoder's {len(self.decoder.blocks)}"
            )
        layer, calls = self.decoder.blocks[block].cross_attention, []
        hook = layer.register_forward_pre_hook(  # type: ignore[union-attr]
            lambda module, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
        )
        try:
            self(source, target, source_mask=source_mask)
        finally:
            hook.remove()
        ((args, kwargs),) = calls
        _, aux = layer(*args, **kwargs, return_aux=AuxRequest(weights=True))  # type: ignore[operator]
        return F.pad(aux.weights, (0, source.shape[1] - aux.weights.shape[3]))

    def decoding(self, source: Tensor, source_mask: Tensor | None = None) -> "TranslatorDecoding":
        """The decoder before its first token, one row for each source (batch, source length)."""
        source, mask = check_source(source, source_mask, self.source_embedding.num_embeddings)
        memory = self.encoder.run(self.source_embedding(source), key_mask=mask)
        return TranslatorDecoding(self, memory, mask)

    def _words(self, target: Tensor) -> Tensor:
        own = self.target_embedding
        return (self.source_embedding if own is None else own)(target)

    def _logits(self, states: Tensor) -> Tensor:
        if self.head is not None:
            return self.head(states)
        own = self.target_embedding
        return F.linear(states, (self.source_embedding if own is None else own).weight)


class TranslatorDecoding:
    """A decoder half way: the past of its self-attention, and a memory whose keys are kept."""

    def __init__(self, model: Translator, memory: Tensor, mask: Tensor) -> None:
        self.model, self.mask, self.rows = model, mask, len(memory)
        self.memory: Tensor | None = memory  # until the caches hold its keys and values
        self.past, self.crossed = model.decoder.new_cache(), model.decoder.new_cache()

    def next(self, tokens: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after one more token of each row (rows,)."""
        states = self.model.decoder.run(
            self.model._words(tokens[:, None]),
            is_causal=True,
            cache=self.past,
            memory=self.memory,
            memory_mask=self.mask,
            memory_cache=self.crossed,
        )
        self.memory = None
        return self.model._logits(states)[:, 0]

    def select(self, index: Tensor) -> None:
        """Go on with the rows at `index`; see `Decoding`."""
        grows = len(index) != self.rows  # otherwise each row keeps a memory of its source
        for cache in (*self.past, *(self.crossed if grows else ())):
            cache.select(index)
        self.mask, self.rows = self.mask[index] if grows else self.mask, len(index)

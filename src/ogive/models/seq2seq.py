"""Seq2Seq: a recurrent encoder and decoder with attention between them, as Bahdanau built it."""

from typing import cast

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from ogive.errors import ArgumentError
from ogive.kernels import AuxRequest
from ogive.kernels.auxiliary import Aux
from ogive.kernels.checks import check_dropout
from ogive.layers.attention import Attention
from ogive.layers.cache import Cache
from ogive.layers.checks import whole
from ogive.layers.feedforward import activation_from
from ogive.models.pairs import Pairs, check_source, check_target
from ogive.parts.part import Sizes
from ogive.parts.sites import Sites


class Seq2Seq(Pairs):
    """Reads a sentence both ways, then writes another, looking back at each step.

    A bidirectional GRU gives every token j of the source an annotation h_j of both directions.
    At step i the decoder's last state s_{i−1} is the query, the annotations are the memory, and
    what attention returns, c_i, goes with the last token y_{i−1} into the decoder's GRU:

        c_i = attention(s_{i−1}, h),  s_i = GRU(s_{i−1}, [y_{i−1}; c_i]),
        logits_i = head(f(readout [s_i; y_{i−1}; c_i]))

    With `sites="score=additive(tanh)"` the score is the paper's v·tanh(W s_{i−1} + U h_j); its U h
    is computed once for each sentence. Dot products, scaled (the default) or not, and `bilinear`
    are another `Sites`. Beyond the paper, values and output have the projections that the layer
    has (`value` and `output` sites), and the readout is an ordinary hidden layer where the paper
    has a maxout.

    torch.compile runs it in pieces and refuses it with `fullgraph=True`: it traces no recurrent
    layer of torch's, and sentences are packed by lengths, which are read from the mask as numbers.

    Args:
        source_vocabulary, target_vocabulary: how many tokens either language has.
        width: features of an embedding, of a state of each GRU, and of the attention layer.
        depth: GRU layers of the encoder and of the decoder; the top one attends.
        heads: of attention.
        hidden: features of the readout; None for `width`, 0 for none.
        sites: what sits where in the attention layer.
        activation: of the readout, an activation or `glu`.
        end: the token that starts and ends an answer.
        dropout: probability, in training, of dropping a feature of an embedding, of a state
            between GRU layers and of the readout, and a weight of attention.
        impl: what runs the operation.

    Raises:
        UnknownName, ArgumentError: an argument that does not fit.
    """

    kind = "seq2seq"

    def __init__(
        self,
        source_vocabulary: int,
        target_vocabulary: int,
        width: int,
        depth: int = 1,
        heads: int = 1,
        *,
        hidden: int | None = None,
        sites: Sites | str = Sites(),  # noqa: B008  (frozen)
        activation: str = "tanh",
        end: int = 0,
        dropout: float = 0.0,
        impl: str = "auto",
    ) -> None:
        super().__init__(end, target_vocabulary)
        self.width, self.depth = whole("width", width), whole("depth", depth)
        self.dropout = nn.Dropout(check_dropout(dropout))
        self.source_embedding = nn.Embedding(whole("source_vocabulary", source_vocabulary), width)
        self.target_embedding = nn.Embedding(target_vocabulary, width)
        between = dropout if depth > 1 else 0.0
        self.encoder = nn.GRU(
            width, width, depth, batch_first=True, bidirectional=True, dropout=between
        )
        self.bridge = nn.Linear(width, width)
        self.attention = Attention(
            width, heads, memory_width=2 * width, sites=sites, dropout=dropout, impl=impl
        )
        self.cells = nn.ModuleList(
            nn.GRUCell(width if layer else 2 * width, width) for layer in range(depth)
        )
        self._build_readout(width if hidden is None else whole("hidden", hidden, 0), activation)

    def _build_readout(self, hidden: int, activation: str) -> None:
        reads = 3 * self.width
        self.readout = self.activation = None
        if hidden:
            self.activation = activation_from(activation)
            into = self.activation.width_in(hidden)
            self.activation.setup(Sizes(reads, 1, into, True))
            self.readout = nn.Linear(reads, into)
            reads = self.activation.width_out(into)
        self.head = nn.Linear(reads, self.target_vocabulary)

    def forward(
        self,
        source: Int64[Tensor, "b s"],
        target: Int64[Tensor, "b t"],
        *,
        source_mask: Bool[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "b t vocabulary"]:
        """Logits for the token after each one of the target (teacher forcing).

        Args:
            source: (batch, source length) int64.
            target: (batch, length) int64: `end`, then the answer but for its own end; see
                `teacher`.
            source_mask: bool (batch, source length), True = a token, False = padding, which can
                only follow the tokens; None for no padding.

        Returns:
            (batch, length, target vocabulary).
        """
        decoding = self.decoding(source, source_mask)
        check_target(target, source, self.target_vocabulary)
        words = self.target_embedding(target)
        words = self.dropout(words) if self.dropout.p else words
        states = [decoding.step(word)[0] for word in words.unbind(1)]
        return self._logits(torch.stack(states, 1))

    def weights(
        self,
        source: Int64[Tensor, "b s"],
        target: Int64[Tensor, "b t"],
        *,
        source_mask: Bool[Tensor, "b s"] | None = None,
    ) -> Float[Tensor, "b h t s"]:
        """The rows of attention: (batch, heads, target length, source length), as in `forward`."""
        decoding = self.decoding(source, source_mask)
        check_target(target, source, self.target_vocabulary)
        words = self.target_embedding(target).unbind(1)
        rows = [decoding.step(word, AuxRequest(weights=True))[1] for word in words]
        seen = torch.cat([cast(Tensor, cast(Aux, row).weights) for row in rows], 2)
        return nn.functional.pad(seen, (0, source.shape[1] - seen.shape[3]))

    def decoding(self, source: Tensor, source_mask: Tensor | None = None) -> "SeqDecoding":
        """The decoder before its first step, one row for each sentence (batch, source length)."""
        vocabulary = self.source_embedding.num_embeddings
        source, mask = check_source(source, source_mask, vocabulary)
        lengths = _lengths(mask)
        memory, last = self._read(source, lengths)
        states = [torch.tanh(self.bridge(state)) for state in last]
        return SeqDecoding(self, memory, mask, states)

    def _read(self, source: Tensor, lengths: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Annotations (batch, source length, 2·width), and each layer's last backward state.

        Each sentence is read up to its own end, so that padding is never read.
        """
        words = self.source_embedding(source)
        words = self.dropout(words) if self.dropout.p else words
        packed = nn.utils.rnn.pack_padded_sequence(
            words, lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        annotations, last = self.encoder(packed)
        memory, _ = nn.utils.rnn.pad_packed_sequence(annotations, batch_first=True)
        return memory, list(last[1::2])

    def _logits(self, states: Tensor) -> Tensor:
        """(…, 3·width) of state, last token and context, to (…, target vocabulary)."""
        if self.readout is not None and self.activation is not None:
            read = self.readout(states)
            states = self.activation(read, states)
            states = self.dropout(states) if self.dropout.p else states
        return self.head(states)


class SeqDecoding:
    """A recurrent decoder half way: its states, and a memory whose keys are computed once."""

    def __init__(
        self, model: Seq2Seq, memory: Tensor, mask: Tensor | None, states: list[Tensor]
    ) -> None:
        self.model, self.states, self.mask = model, states, mask
        self.memory: Tensor | None = memory  # until the cache holds its keys and values
        self.cache = Cache()

    def next(self, tokens: Tensor) -> Tensor:
        """Logits (rows, vocabulary) after one more token of each row (rows,)."""
        return self.model._logits(self.step(self.model.target_embedding(tokens))[0])

    def step(self, word: Tensor, request: AuxRequest | None = None) -> tuple[Tensor, Aux | None]:
        """One step on an embedded token (rows, width): [state; token; context] and what was asked.

        Returns:
            (rows, 3·width), and an `Aux` where there is a request.
        """
        out = self.model.attention(
            self.states[-1].unsqueeze(1),
            self.memory,
            key_mask=self.mask,
            cache=self.cache,
            return_aux=request,
        )
        self.memory = None
        mixed, aux = out if request is not None else (out, None)
        context = mixed.squeeze(1)
        below = torch.cat([word, context], 1)
        for layer, cell in enumerate(self.model.cells):
            below = self.states[layer] = cell(self._between(below, layer), self.states[layer])
        return torch.cat([below, word, context], 1), aux

    def _between(self, below: Tensor, layer: int) -> Tensor:
        return self.model.dropout(below) if layer and self.model.dropout.p else below

    def select(self, index: Tensor) -> None:
        """Go on with the rows at `index`; see `Decoding`."""
        if len(index) != len(self.states[0]):  # otherwise each row keeps a memory of its sentence
            self.cache.select(index)
            self.mask = None if self.mask is None else self.mask[index]
        self.states = [state[index] for state in self.states]


def _lengths(mask: Tensor) -> Tensor:
    """How many tokens each sentence has; raises where a mask (batch, length) has holes."""
    if not len(mask):
        raise ArgumentError("source takes a batch of one sentence at least, not of none")
    lengths = mask.sum(1)
    if int(lengths.min()) == 0:
        empty = int((lengths == 0).nonzero()[0])
        raise ArgumentError(
            f"source_mask hides all of sentence {empty}: a recurrent encoder reads one token at "
            "least"
        )
    if not torch.equal(mask, torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]):
        raise ArgumentError(
            "source_mask hides tokens before the end of a sentence: here padding can only follow "
            "the tokens (True … True False … False)"
        )
    return lengths

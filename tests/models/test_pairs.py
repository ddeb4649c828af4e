"""What every model of pairs must do: see no future and no padding, decode as it was taught."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from layers.cases import MIXTURES, SCORES, WEIGHTS, close, shaken
from ogive.errors import ArgumentError, ArgumentTypeError
from ogive.models import Seq2Seq, Translator
from ogive.models.search import search
from sampling import sampled

WORDS, ANSWERS, END = 20, 9, 3
RANDOM = torch.Generator().manual_seed(2)
SOURCE = torch.randint(WORDS, (3, 7), generator=RANDOM)
TARGET = torch.randint(ANSWERS, (3, 5), generator=RANDOM)
LENGTHS = torch.tensor([7, 4, 2])
MASK = torch.arange(7) < LENGTHS[:, None]

MAKERS = {
    "seq2seq": lambda **more: Seq2Seq(WORDS, ANSWERS, 24, heads=4, end=END, **more),
    "deep": lambda **more: Seq2Seq(WORDS, ANSWERS, 24, 2, 4, hidden=0, end=END, **more),
    "pre-norm": lambda **more: Translator(
        WORDS, ANSWERS, 24, 2, 4, end=END, positions="rope", max_length=12, **more
    ),
    "post-norm": lambda **more: Translator(
        WORDS, ANSWERS, 24, 2, 4, end=END, norm_first=False, tie_embeddings=False, **more
    ),
    "shared": lambda **more: Translator(
        WORDS, None, 24, 1, 4, end=END, positions="sinusoidal", **more
    ),
}


@pytest.fixture(params=MAKERS)
def make(request):
    return lambda **more: shaken(MAKERS[request.param](**more)).eval()


SITES = [
    *(f"weight={weight}" for weight in WEIGHTS),
    *(f"score={score}" for score in SCORES),
    *(str(case.sites) for case in sampled(MIXTURES, 6, "pairs")),
]


def check_padding(model) -> None:
    """Other padding, and more of it, leave every bit of answers and gradients as it was."""
    wanted, logits = None, None
    generator = torch.Generator().manual_seed(4)
    for extra in (0, 0, 3):
        padding = torch.randint(WORDS, (3, 7 + extra), generator=generator)
        mask = F.pad(MASK, (0, extra))
        source = torch.where(mask, F.pad(SOURCE, (0, extra)), padding)
        model.zero_grad()
        logits = model(source, model.teacher(TARGET), source_mask=mask)
        logits.square().sum().backward()
        came = [
            logits.detach(),
            model.generate(source, 5, source_mask=mask),
            model.generate(source, 5, source_mask=mask, beams=3),
            *(
                p.grad.clone()
                for name, p in model.named_parameters()
                if p.grad is not None and name != "source_embedding.weight"
            ),
        ]
        wanted = came if wanted is None else wanted
        assert len(came) > 10
        for one, other in zip(came, wanted, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("sites", SITES)
def test_padding_changes_no_bit(sites):
    for name in ("seq2seq", "pre-norm"):
        check_padding(shaken(MAKERS[name](sites=sites)).eval())


def test_padding_changes_no_bit_in_any_model(make):
    check_padding(make())


def test_bites_on_a_model_that_reads_padding(make):
    model = make()
    if isinstance(model, Seq2Seq):
        model._read = lambda source, lengths: _unpacked(model, source)
    else:
        for block in (*model.encoder.blocks, *model.decoder.blocks):
            for layer in (block.attention, block.cross_attention):
                if layer is not None:
                    layer.register_forward_pre_hook(_without_mask, with_kwargs=True)
    with pytest.raises(AssertionError):
        check_padding(model)


def _unpacked(model, source):
    """The wrong twin of `_read`: reads on over the end of a sentence."""
    memory, last = model.encoder(model.source_embedding(source))
    return memory, list(last[1::2])


def _without_mask(module, args, kwargs):
    return args, {**kwargs, "key_mask": None}


def test_a_sentence_reads_alike_alone_and_among_others(make):
    model = make()
    together = model(SOURCE, model.teacher(TARGET), source_mask=MASK)
    for row, length in enumerate(LENGTHS):
        alone = model(SOURCE[row : row + 1, :length], model.teacher(TARGET[row : row + 1]))
        close(alone[0], together[row])


def test_a_later_token_of_the_answer_changes_nothing_before(make):
    model = make()
    reads = model.teacher(TARGET)
    before = model(SOURCE, reads, source_mask=MASK)
    for at in range(1, 5):
        changed = reads.clone()
        changed[:, at] = (changed[:, at] + 1) % ANSWERS
        after = model(SOURCE, changed, source_mask=MASK)
        assert torch.equal(after[:, :at], before[:, :at])
        assert ((after - before)[:, at].abs() > 1e-9).any(-1).all()


def test_every_token_of_the_source_matters(make):
    model = make()
    before = model(SOURCE, model.teacher(TARGET), source_mask=MASK)
    for at in range(7):
        changed = SOURCE.clone()
        changed[:, at] = (changed[:, at] + 1) % WORDS
        moved = model(changed, model.teacher(TARGET), source_mask=MASK) - before
        moves = moved.abs().amax((1, 2)) > 1e-9
        assert torch.equal(moves, MASK[:, at])


def check_decoding(model, decoding) -> None:
    """Token by token gives the logits of one teacher-forced pass."""
    reads = model.teacher(TARGET)
    stepped = torch.stack([decoding.next(token) for token in reads.unbind(1)], 1)
    close(stepped, model(SOURCE, reads, source_mask=MASK), 1e-8)


def test_decoding_equals_the_full_forward(make):
    model = make()
    check_decoding(model, model.decoding(SOURCE, MASK))


@pytest.mark.parametrize("sites", SITES)
def test_decoding_equals_the_full_forward_for_every_part(sites):
    for name in ("seq2seq", "pre-norm"):
        model = shaken(MAKERS[name](sites=sites)).eval()
        check_decoding(model, model.decoding(SOURCE, MASK))


def test_bites_on_a_decoding_that_forgets(make):
    model = make()
    decoding = model.decoding(SOURCE, MASK)
    plain = decoding.next

    def forgets(tokens):
        if hasattr(decoding, "states"):
            decoding.states = [state * 0 for state in decoding.states]
        else:
            decoding.past = model.decoder.new_cache()
        return plain(tokens)

    decoding.next = forgets
    with pytest.raises(AssertionError):
        check_decoding(model, decoding)


def test_greedy_writes_what_teacher_forcing_finds_likeliest(make):
    model = make()
    answers = model.generate(SOURCE, 6, source_mask=MASK)
    likeliest = model(SOURCE, model.teacher(answers), source_mask=MASK).argmax(-1)
    ended = (answers == END).cumsum(1) - (answers == END).long() > 0
    assert torch.equal(answers[~ended], likeliest[~ended])
    assert bool((answers[ended] == END).all())


def test_beams_score_what_the_model_says(make):
    """Every beam's score is the log probability that a teacher-forced pass gives its answer."""
    model = make()
    answers, scores = search(model.decoding(SOURCE, MASK), 3, END, 4, beams=3)
    for row in range(answers.shape[1]):
        said = answers[:, row]
        logits = model(SOURCE, model.teacher(said), source_mask=MASK)
        each = torch.log_softmax(logits, -1).gather(2, said[..., None])[..., 0]
        counts = (said == END).cumsum(1) - (said == END).long() == 0
        close((each * counts).sum(1), scores[:, row].double(), 1e-6)
    assert torch.equal(model.generate(SOURCE, 4, source_mask=MASK, beams=3), answers[:, 0])


def test_more_beams_never_find_less_likely_answers_than_all_of_them(make):
    model = make()
    few, best = (
        search(model.decoding(SOURCE[:1]), 1, END, 2, beams=beams)[1][0, 0] for beams in (1, 400)
    )
    assert best >= few - 1e-9


def test_weights_are_the_rows_of_attention(make):
    model = make()
    rows = model.weights(SOURCE, model.teacher(TARGET), source_mask=MASK)
    assert rows.shape == (3, 4, 5, 7)
    close(rows.sum(-1), torch.ones(3, 4, 5, dtype=torch.float64))
    assert bool((rows.masked_select(~MASK[:, None, None]) == 0).all())
    wide = F.pad(MASK, (0, 2))
    padded = model.weights(F.pad(SOURCE, (0, 2)), model.teacher(TARGET), source_mask=wide)
    assert torch.equal(padded, F.pad(rows, (0, 2)))


def test_it_learns_to_reverse(make):
    torch.manual_seed(0)
    model = make().float().train()
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    falling = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, 180)  # no leap at the end
    source = torch.randint(4, 8, (16, 4))
    answers = torch.cat([source.flip(1), torch.full((16, 1), END)], 1)
    for _ in range(180):
        logits = model(source, model.teacher(answers))
        loss = F.cross_entropy(logits.flatten(0, 1), answers.flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        falling.step()
    model.eval()
    for beams in (1, 3):
        assert torch.equal(model.generate(source, 8, beams=beams), answers)


def test_it_saves_and_loads(make, tmp_path):
    model = make(sites="score=additive(tanh)")
    model.save(tmp_path)
    loaded = type(model).load(tmp_path)
    reads = model.teacher(TARGET)
    wanted = model(SOURCE, reads, source_mask=MASK)
    assert torch.equal(loaded(SOURCE, reads, source_mask=MASK), wanted)


def test_teacher_reads_the_end_first_and_nothing_that_is_not_asked(make):
    asked = torch.tensor([[5, 6, END, -100]])
    assert make().teacher(asked).tolist() == [[END, 5, 6, END]]


@pytest.mark.parametrize(
    ("act", "error", "says"),
    [
        (lambda m: m.generate(SOURCE, 5, beams=0), ArgumentError, "beams.*at least 1, not 0"),
        (lambda m: m.generate(SOURCE, 0), ArgumentError, "max_length.*at least 1, not 0"),
        (lambda m: m.generate(SOURCE[:, :0], 5), ArgumentError, "source takes .*length ≥ 1"),
        (lambda m: m(SOURCE, TARGET[:, :0]), ArgumentError, "target takes .*length ≥ 1"),
        (lambda m: m(SOURCE, TARGET[:2]), ArgumentError, "target has a batch of 2, and source"),
        (lambda m: m(SOURCE + 9, TARGET), ArgumentError, r"source ranges from .* 0 … 19"),
        (lambda m: m(SOURCE, TARGET - 5), ArgumentError, "target ranges from -"),
        (lambda m: m(SOURCE.float(), TARGET), ArgumentTypeError, "source takes whole numbers"),
        (lambda m: m(SOURCE[0], TARGET), ArgumentError, r"source takes \(batch, length\)"),
        (lambda m: m([[1]], TARGET), ArgumentTypeError, "source takes a tensor, not list"),
        (
            lambda m: m(SOURCE, TARGET, source_mask=MASK.long()),
            ArgumentTypeError,
            "source_mask takes bool",
        ),
        (
            lambda m: m(SOURCE, TARGET, source_mask=MASK[:, :5]),
            ArgumentError,
            r"source_mask has shape \(3, 5\)",
        ),
    ],
)
def test_bad_calls(make, unchecked_shapes, act, error, says):
    with pytest.raises(error, match=says):
        act(make())


def test_no_sentences_get_no_answers():
    """A transformer reads an empty batch; a recurrent network of torch's cannot, and says so."""
    for beams in (1, 3):
        answers = Translator(20, 12, 16, 1, 4).eval().generate(SOURCE[:0], 4, beams=beams)
        assert answers.shape[0] == 0
        with pytest.raises(ArgumentError, match="one sentence at least"):
            Seq2Seq(20, 12, 16).eval().generate(SOURCE[:0], 4, beams=beams)

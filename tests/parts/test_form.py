"""The written form: it round-trips, and nonsense gets an error that shows it."""

from __future__ import annotations

import math
import random
import string
import time

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ogive.errors import ArgumentError, OgiveError
from ogive.parts import (
    Form,
    Part,
    Projection,
    ScoreMap,
    Sites,
    build,
    parse_chain,
    parse_form,
    score_from,
)
from ogive.parts.part import _parameters
from parts.samples import CHAINS, SIZES, everything, normal, randomised, ready

NAMES = st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,8}", fullmatch=True)


def _stays_a_word(word: str) -> bool:
    try:
        return word not in ("true", "false") and not math.isfinite(float(word))
    except ValueError:
        return word not in ("true", "false")


WORDS = st.from_regex(r"[A-Za-z0-9_+./-]{1,8}", fullmatch=True).filter(_stays_a_word)
PLAIN = st.one_of(
    st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), WORDS
)


def _with_arguments(values: st.SearchStrategy) -> st.SearchStrategy[Form]:
    """Forms that have arguments; inside brackets a form without them is read as a word."""
    keyword = st.dictionaries(NAMES, values, max_size=3).map(lambda d: tuple(d.items()))
    positional = st.lists(values, max_size=3).map(tuple)
    forms = st.builds(Form, NAMES, positional, keyword)
    return forms.filter(lambda form: form.positional or form.keyword)


NESTED = st.recursive(PLAIN, lambda inner: st.one_of(PLAIN, _with_arguments(inner)), max_leaves=8)
FORMS = st.one_of(NAMES.map(Form), _with_arguments(NESTED))


@settings(max_examples=300, deadline=None)
@given(FORMS)
def test_any_form_reads_back_as_itself(form):
    assert parse_form(str(form)) == form
    assert str(parse_form(str(form))) == str(form)


@settings(max_examples=100, deadline=None)
@given(st.lists(FORMS, max_size=4))
def test_any_chain_reads_back_as_itself(forms):
    text = ",".join(str(form) for form in forms)
    assert parse_chain(text) == tuple(forms)
    assert parse_chain(f" {text.replace(',', ' , ')} ") == tuple(forms)


@pytest.mark.parametrize(("family", "form"), everything())
def test_every_part_reads_back_as_itself(family, form):
    part = build(family, form)
    again = build(family, str(part))
    assert type(again) is type(part)
    assert parse_form(str(part)) == part.form
    assert str(again) == str(part)
    assert again.form == part.form
    assert again.facts == part.facts
    assert repr(part).startswith(type(part).__name__)


@pytest.mark.parametrize("chain", CHAINS)
def test_score_chains_read_back_as_themselves(chain):
    assert str(score_from(str(score_from(chain)))) == str(score_from(chain))
    assert str(score_from("dot,softcap(5)")) == "softcap(5)"


@pytest.mark.parametrize(
    ("family", "came", "canonical"),
    [
        ("map", " gate ( sigmoid , granularity = head ) ", "gate(sigmoid,granularity=head)"),
        ("map", "gate(act=sigmoid)", "gate(sigmoid)"),
        ("map", "gate(sigmoid,element)", "gate(sigmoid)"),
        ("map", "gate(sigmoid())", "gate(sigmoid)"),
        ("map", "gate(leaky_relu(0.2))", "gate(leaky_relu)"),
        ("map", "gate(leaky_relu(slope=0.1))", "gate(leaky_relu(slope=0.1))"),
        ("map", "power(2.0)", "power(2)"),
        ("map", "power(2e0)", "power(2)"),
        ("map", "gelu()", "gelu"),
        ("map", "rmsnorm(gain=false)", "rmsnorm"),
        ("map", "mlp(gelu,match)", "mlp(gelu)"),
        ("weight", "sigmoid", "sigmoid(bias=-log_n)"),
        ("weight", "sigmoid(-log_n)", "sigmoid(bias=-log_n)"),
        ("weight", "sigmoid(1.0)", "sigmoid(bias=1)"),
        ("weight", "relu", "relu(length_power=1)"),
        ("weight", "linear", "linear(normalise=true)"),
        ("score", "cosine(10.0,false)", "cosine"),
        ("score", "distance(match,1)", "distance(power=1)"),
    ],
)
def test_canonical_forms(family, came, canonical):
    assert str(build(family, came)) == canonical
    assert str(build(family, canonical)) == canonical


@pytest.mark.parametrize("word", ["nan", "inf", "-inf", "1e999", "9" * 5000, "infinity"])
def test_numbers_that_are_not_finite_stay_words_and_fit_nowhere(word):
    assert parse_form(f"power({word})").positional == (word,)
    with pytest.raises(ArgumentError):
        build("map", f"power({word})")
    with pytest.raises(ArgumentError):
        build("weight", f"sigmoid(bias={word})")


@pytest.mark.parametrize(
    "text",
    [
        "(", ")", "gate(", "gate)", "gate(sigmoid", "gate(sigmoid))", "gelu,", ",gelu",
        "gelu,,relu", "gelu relu", "gate(=sigmoid)", "gate(act=)", "gate(act=sigmoid,head)",
        "gate(a=1,a=2)", "3", "-gelu", "gelu!", "gate(sigmoid;head)", "ge lu", "gate(,)",
        "gelu\x00", "ｇelu", "λ",
        "a(1)(2)", "a(b=c=d)", "a((b))", "=", "a=b", "a(b)c", "a(-b(2))",
    ],
)  # fmt: skip
def test_text_that_does_not_read_is_shown(text):
    with pytest.raises(ArgumentError) as caught:
        parse_chain(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("came", [None, 3, b"gelu", ["gelu"], object()])
def test_what_is_not_text_is_shown(came):
    with pytest.raises(ArgumentError, match="written form"):
        parse_chain(came)


@pytest.mark.parametrize("text", ["", "  ", "gelu,relu"])
def test_exactly_one_form(text):
    with pytest.raises(ArgumentError, match="exactly one"):
        parse_form(text)


@pytest.mark.parametrize("depth", [17, 100, 5_000, 200_000])
def test_deep_nesting_is_refused_at_once(depth):
    start = time.monotonic()
    for text in ("a(" * depth, "a(" * depth + "b" + ")" * depth, "(" * depth, "a(b=" * depth):
        with pytest.raises(ArgumentError):
            parse_chain(text)
    assert time.monotonic() - start < 5


def test_empty_brackets_inside_brackets_are_dropped():
    for text in ("a(b())", "a( b( ) )", "a(b)"):
        assert parse_form(text) == Form("a", ("b",))
    assert parse_form("a(key=b(),other=true())") == parse_form("a(key=b,other=true)")


def test_sixteen_brackets_are_fine():
    text = "a(" * 16 + "b" + ")" * 16
    assert str(parse_form(text)) == text


ALPHABETS = [
    "ab(),=",
    "gelu()=,. 019-_+",
    string.printable,
    "query=key weight(),softmax gate(sigmoid) linear -log_n",
    "".join(chr(c) for c in (0, 9, 10, 40, 41, 44, 61, 127, 0x3BB, 0x2028, 0x1F600, 0xD7FF)),
]


def _nonsense(count: int) -> list[str]:
    """Random text: from alphabets, and from written forms with characters changed."""
    draw = random.Random(20)
    forms = [form for _, form in everything()]
    texts = []
    for _ in range(count):
        if draw.random() < 0.5:
            letters = draw.choice(ALPHABETS)
            texts.append("".join(draw.choices(letters, k=draw.randrange(1, 24))))
        else:
            text = list(",".join(draw.sample(forms, draw.randrange(1, 3))))
            for _ in range(draw.randrange(1, 4)):
                text[draw.randrange(len(text))] = draw.choice(string.printable[:95])
            texts.append("".join(text))
    return texts


def test_nonsense_reads_or_raises_an_error_that_shows_it():
    came = [(text, _read(text)) for text in _nonsense(6_000)]
    errors = [(text, answer) for text, answer in came if isinstance(answer, ArgumentError)]
    chains = [answer for _, answer in came if isinstance(answer, tuple)]
    assert all(repr(text) in str(error) for text, error in errors)
    assert all(parse_chain(",".join(str(form) for form in chain)) == chain for chain in chains)
    assert len(chains) > 300
    assert len(errors) > 2_000


def _read(text: str) -> tuple[Form, ...] | ArgumentError:
    try:
        return parse_chain(text)
    except ArgumentError as error:
        return error


@pytest.mark.parametrize("take", [
    lambda text: build("map", text),
    lambda text: build("weight", text),
    score_from,
    Sites.parse,
    lambda text: Sites(query=text),
    lambda text: Sites(mixed=text),
    lambda text: Sites.parse(f"value={text}"),
], ids=["map", "weight", "score", "sites", "query", "mixed", "value="])  # fmt: skip
def test_nonsense_never_raises_anything_else(take):
    refused = 0
    for text in _nonsense(1_500):
        try:
            take(text)
        except OgiveError:
            refused += 1
    assert refused > 700


# --- options -----------------------------------------------------------------------------------

CANDIDATES = [
    True, False, 0.5, 1, 2, 3, 7, "relu", "tanh", "silu", "element", "head", "double", "split",
    "match", "-log_n", "learned",
]  # fmt: skip


def options() -> list[tuple[str, str, str]]:
    """(family, written form, option) for every argument of every part's constructor."""
    return [
        (family, form, parameter.name)
        for family, form in everything()
        for parameter in _parameters(type(build(family, form)))
    ]


def _behaviour(part: Part) -> list:
    """Everything that an option may change: widths, what is learned, and what comes out of it.

    Twice: as the part starts, and with what it learns drawn at random.
    """
    return [_once(part, learned=False), _once(part, learned=True)]


def _once(part: Part, learned: bool) -> list:
    torch.manual_seed(0)
    widths = [part.width_in(12), part.width_out(12)] if part.family == "map" else []
    if part.family == "weight":
        scores = normal(1, 2, 4, 6) * 4
        out = ready(part)(scores, scores < 3)
    else:
        part.setup(SIZES).double()
        if learned:
            randomised(part)
        out = _any_output(part)
    shapes = [(name, tuple(p.shape)) for name, p in part.named_parameters()]
    return [widths, shapes, out.shape, out.tolist()]


def _any_output(part: Part) -> Tensor:
    h, x, query, key = (normal(2, *s) for s in ((5, 2, 6), (5, 12), (2, 3, 6), (2, 4, 6)))
    if isinstance(part, Projection):
        return part(x)
    if part.family == "map":
        return part(h, x)
    return part.value(query) if isinstance(part, ScoreMap) else part(query, key)


@pytest.mark.parametrize(("family", "form", "option"), options())
def test_every_option_changes_something_or_is_refused(family, form, option):
    part = build(family, form)
    came = {key: value for key, value in _arguments(part).items() if key != option}
    here = _behaviour(build(family, form))
    changed = 0
    for value in CANDIDATES:
        written = Form(part.name, (), (*came.items(), (option, value)))
        try:
            other = build(family, str(written))
        except ArgumentError:
            continue
        if str(other) != str(part):
            assert _behaviour(other) != here, f"{other} does what {part} does"
            changed += 1
    assert changed, f"no value was found that {part} takes for {option}"


def _arguments(part: Part) -> dict:
    form = part.form
    names = [parameter.name for parameter in _parameters(type(part))]
    return {**dict(zip(names, form.positional, strict=False)), **dict(form.keyword)}


MISFITS = {
    "map": """gate; gate(3); gate(glu(silu)); gate(sigmoid,all); gate(sigmoid,size=2); power;
        power(0.5); power(x); power(true); leaky_relu(2); conv(0); conv(1.5); mlp(gelu,hidden=0);
        mlp(gelu,hidden=half); scale(true); scale(0); scale(linear); rmsnorm(gain=1); gelu(1);
        gelu(approximate=tanh); constant_gate(relu); glu(silu,width=half); identity(1)""",
    "score": """softcap(0); softcap; cosine(gain=0); distance(sigma=0); distance(sigma=mach);
        dot(2); distance(power=3); additive; additive(rmsnorm)""",
    "weight": """sigmoid(bias=log_n); relu(length_power=x); tanh(1); linear(normalise=1);
        softmax(temperature=2)""",
}


@pytest.mark.parametrize(
    ("family", "text"),
    [(family, text.strip()) for family, texts in MISFITS.items() for text in texts.split(";")],
)
def test_arguments_that_do_not_fit(family, text):
    with pytest.raises(ArgumentError) as caught:
        build(family, text)
    assert len(str(caught.value)) > 20

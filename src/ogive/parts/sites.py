"""Sites: which part sits where in an attention layer, as one frozen, written value."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

# Their classes must stand before names are looked up: a family is found by walking it.
import ogive.parts.gates
import ogive.parts.weights  # noqa: F401
from ogive.errors import ArgumentError, unknown
from ogive.parts.form import Form, parse_chain
from ogive.parts.maps import Map
from ogive.parts.part import Part, build
from ogive.parts.projections import Projection
from ogive.parts.scores import Score, score_from

MAP_SITES = ("query", "key", "value", "mixed", "output")


@dataclass(frozen=True, eq=False, repr=False)
class Sites:
    """What sits at each site. Each field holds the canonical text of its chain.

    Attributes:
        query, key, value: maps from the layer's input (key and value: from the memory, if there
            is one) to heads. `gelu` means `linear,gelu`.
        score: one score, then maps of scores (`dot,softcap(30)`).
        weight: one weight function.
        mixed: maps of weights @ values, head by head, before the output projection.
        output: the output projection and maps after it. `gelu` means `linear,gelu`.

    Fields take text, a part, or a sequence of these. Equal sites compare and hash equal, however
    they were written: `Sites(query="linear,gelu") == Sites(query="gelu")`.

    Raises:
        UnknownName: a site or part that does not exist.
        ArgumentError: text that does not read, or parts that do not fit the site.
    """

    query: str = "linear"
    key: str = "linear"
    value: str = "linear"
    score: str = "dot"
    weight: str = "softmax"
    mixed: str = ""
    output: str = "linear"

    def __post_init__(self) -> None:
        for site in SITE_NAMES:
            object.__setattr__(self, site, canonical(site, getattr(self, site)))

    @classmethod
    def parse(cls, text: str) -> Sites:
        """Read the written form: `query=gelu weight=sigmoid(bias=-log_n)`; "" is the default."""
        chains: dict[str, str] = {}
        for word in _words(text):
            site, equals, chain = word.partition("=")
            if site not in SITE_NAMES:
                raise unknown("site", site, SITE_NAMES)
            if not equals or not chain:
                raise ArgumentError(f"cannot read {word!r} in {text!r}: fits site=part")
            if site in chains:
                raise ArgumentError(f"cannot read {text!r}: the site {site!r} came twice")
            chains[site] = chain
        return Sites(**chains)

    def chain(self, site: str) -> tuple[Form, ...]:
        """The forms at a site, in order, with the projection or score that comes first."""
        if site not in SITE_NAMES:
            raise unknown("site", site, SITE_NAMES)
        forms = parse_chain(getattr(self, site))
        if site in MAP_SITES and site != "mixed" and not _starts_with_projection(forms):
            return (Form("linear"), *forms)
        return forms

    def differences(self, other: Sites) -> dict[str, tuple[str, str]]:
        """The sites at which two values differ: site → (here, there)."""
        pairs = {site: (getattr(self, site), getattr(other, site)) for site in SITE_NAMES}
        return {site: pair for site, pair in pairs.items() if pair[0] != pair[1]}

    def replace(self, **changes: str) -> Sites:
        """A copy with some sites changed."""
        for site in changes:
            if site not in SITE_NAMES:
                raise unknown("site", site, SITE_NAMES)
        return Sites(**{**dict(self._items()), **changes})

    def __str__(self) -> str:
        plain = {field.name: field.default for field in fields(Sites)}
        return " ".join(f"{site}={chain}" for site, chain in self._items() if chain != plain[site])

    def __repr__(self) -> str:
        plain = {field.name: field.default for field in fields(Sites)}
        shown = [f"{site}={chain!r}" for site, chain in self._items() if chain != plain[site]]
        return f"Sites({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sites) and tuple(self._items()) == tuple(other._items())

    def __hash__(self) -> int:
        return hash(tuple(self._items()))

    def _items(self) -> Iterator[tuple[str, str]]:
        return ((site, getattr(self, site)) for site in SITE_NAMES)


SITE_NAMES = tuple(field.name for field in fields(Sites))


def canonical(site: str, came: object) -> str:
    """The canonical text of a chain at a site; raises where it does not fit there."""
    if site == "score":
        return str(_score(came))
    if site == "weight":
        return str(build("weight", _single(site, came)))  # type: ignore[arg-type]
    parts = [_map(site, form) for form in _forms(came)]
    for at, part in enumerate(parts):
        if isinstance(part, Projection) and (at or site == "mixed"):
            where = "first at query, key, value and output"
            raise ArgumentError(f"{part} at {site!r}: a projection can only stand {where}")
    if len(parts) > 1 and str(parts[0]) == "linear":
        parts = parts[1:]
    if not parts and site != "mixed":
        return "linear"
    return ",".join(str(part) for part in parts)


def _score(came: object) -> Score:
    return score_from(came) if isinstance(came, str | Part) else score_from(tuple(_forms(came)))


def _single(site: str, came: object) -> Form | Part:
    if isinstance(came, Part):
        return came
    forms = list(_forms(came))
    if len(forms) != 1:
        raise ArgumentError(f"the site {site!r} takes exactly one part, not {came!r}")
    return forms[0]


def _forms(came: object) -> Iterator[Form]:
    if isinstance(came, str):
        yield from parse_chain(came)
    elif isinstance(came, Part):
        yield came.form
    elif isinstance(came, Form):
        yield came
    elif isinstance(came, list | tuple):
        for item in came:
            yield from _forms(item)
    else:
        raise ArgumentError(f"a site takes text, a part or a sequence of them, not {came!r}")


def _map(site: str, form: Form) -> Map:
    try:
        return build("map", form)  # type: ignore[return-value]
    except ArgumentError as error:
        raise type(error)(f"at the site {site!r}: {error}") from None


def _starts_with_projection(forms: tuple[Form, ...]) -> bool:
    return bool(forms) and isinstance(build("map", forms[0]), Projection)


def _words(text: str) -> list[str]:
    """Split at spaces outside brackets."""
    if not isinstance(text, str):
        raise ArgumentError(f"Sites.parse takes text such as 'query=gelu', not {text!r}")
    words, depth = [""], 0
    for mark in text:
        depth += (mark == "(") - (mark == ")")
        if mark.isspace() and depth <= 0:
            words.append("")
        else:
            words[-1] += mark
    return [word for word in words if word]

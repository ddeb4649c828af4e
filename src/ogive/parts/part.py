"""Part: what sits at a site. Its name, formula, source and facts; repr and parse; the family walk.

A family (Map, Score, Weight) is an abstract class; a member is a short final class that names
itself. Defining the class is all the registration there is: `catalogue` finds it by walking.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Self

from torch import nn

from ogive.errors import ArgumentError, unknown
from ogive.parts.facts import Facts
from ogive.parts.form import Form, Value, parse_form, write_value


@dataclass(frozen=True)
class Sizes:
    """What a layer tells its parts, once, in `setup`.

    Attributes:
        width: features of the layer's input x (for key and value maps: of the memory).
        heads: heads at this site (key and value sites count key/value heads; output counts 1).
        head_width: features per head on the path at this place of the chain.
        bias: whether linear projections add a bias.
    """

    width: int
    heads: int
    head_width: int
    bias: bool = False


_generation = [0]


def generation() -> int:
    """How many part classes were ever defined: what was looked up by name before may be stale."""
    return _generation[0]


class Part(nn.Module):
    """Base of all parts.

    A member sets `name`, `formula`, `source` and `facts`, takes in its constructor only what its
    written form shows (kept in attributes of the same names), and creates parameters, if any,
    in `setup`. Members are final: to vary one, wrap it.
    """

    family: ClassVar[str] = ""
    name: ClassVar[str] = ""
    formula: ClassVar[str] = ""
    source: ClassVar[str] = ""
    facts: Facts = Facts()
    needs_setup: ClassVar[bool] = False
    """True where the part learns parameters, and so cannot run before `setup(sizes)`."""
    spelled_out: ClassVar[tuple[str, ...]] = ()
    """Arguments which the written form shows even at their defaults (length normalisation)."""
    listed: ClassVar[bool] = True
    """False for parts that only tests know (`class Wrong(Weight, listed=False)`)."""
    example: ClassVar[str] = ""
    """A written form that builds, for parts whose name alone does not: docs and tests use it."""

    def __init_subclass__(cls, *, listed: bool = True, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.listed = listed
        _generation[0] += 1
        for base in cls.__mro__[1:]:
            if base.__dict__.get("name"):
                raise TypeError(f"{cls.__name__} extends {base.__name__}, which is final: wrap it")

    def __init__(self) -> None:
        super().__init__()

    def setup(self, sizes: Sizes) -> Self:
        """Create parameters for a layer of these sizes. Called once by the layer that owns it."""
        return self

    @property
    def form(self) -> Form:
        """The canonical written form: defaults dropped, apart from those in `spelled_out`."""
        positional: list[Value] = []
        keyword: list[tuple[str, Value]] = []
        for at, parameter in enumerate(_parameters(type(self))):
            value = _canonical_value(getattr(self, parameter.name))
            required = parameter.default is inspect.Parameter.empty
            if required and at == len(positional):
                positional.append(value)
            elif required or parameter.name in self.spelled_out or _differs(value, parameter):
                keyword.append((parameter.name, value))
        return Form(self.name, tuple(positional), tuple(keyword))

    def __str__(self) -> str:
        return str(self.form)

    def extra_repr(self) -> str:
        inner = str(self.form)[len(self.name) :]
        return inner.removeprefix("(").removesuffix(")")


def catalogue(family: str) -> dict[str, type[Part]]:
    """The members of a family by name, found by walking its classes.

    Args:
        family: "map", "score" or "weight".

    Returns:
        name → class, sorted by name. A class defined a moment ago is in it.
    """
    found: dict[str, type[Part]] = {}
    for member in _walk(family_root(family)):
        if member.name and member.listed:
            other = found.setdefault(member.name, member)
            if other is not member and other.__qualname__ != member.__qualname__:
                raise ArgumentError(
                    f"two {family} parts are named {member.name!r}: "
                    f"{other.__module__}.{other.__qualname__} and "
                    f"{member.__module__}.{member.__qualname__}"
                )
            found[member.name] = member
    return dict(sorted(found.items()))


def family_root(family: str) -> type[Part]:
    """The abstract class at the head of a family; `UnknownName` for any other word."""
    roots = {root.family: root for root in Part.__subclasses__() if root.family}
    if family not in roots:
        raise unknown("family of parts", str(family), roots)
    return roots[family]


def build(family: str, written: str | Form | Part) -> Part:
    """A part from its written form.

    Args:
        family: "map", "score" or "weight".
        written: text, a parsed form, or a part of that family (returned as it is).

    Returns:
        A new part, not yet set up.

    Raises:
        UnknownName: no part of the family has that name.
        ArgumentError: the arguments do not fit its constructor, or the part is of another family.
    """
    root = family_root(family)
    if isinstance(written, Part):
        if not isinstance(written, root):
            raise ArgumentError(f"{written} is a {written.family}, where a {family} fits")
        return written
    form = parse_form(written) if isinstance(written, str) else written
    if not isinstance(form, Form):
        raise ArgumentError(f"{family} takes a written form or a part, not {written!r}")
    members = catalogue(family)
    if form.name not in members:
        raise unknown(family, form.name, members)
    return _construct(members[form.name], form)


def setup_error(part: Part) -> ArgumentError:
    """The error for a part that learns parameters and was used without a layer."""
    return ArgumentError(
        f"{part} learns parameters: call part.setup(Sizes(width, heads, head_width)) and pass the "
        f"part, or use it in a layer (Attention(…, sites=Sites({part.family}={str(part)!r})))"
    )


def choice(name: str, came: object, fits: tuple[str, ...]) -> str:
    """`came`, checked to be one of the words that fit; raises `UnknownName` otherwise."""
    if came not in fits:
        raise unknown(name, str(came), fits)
    return str(came)


def number(name: str, came: object, *, above: float | None = None) -> float:
    """`came`, checked to be a finite number (and greater than `above`)."""
    if isinstance(came, bool) or not isinstance(came, int | float) or not math.isfinite(came):
        raise ArgumentError(f"{name} takes a finite number, not {came!r}")
    if above is not None and came <= above:
        raise ArgumentError(f"{name} takes a number above {above:g}, not {came!r}")
    return came


def flag(name: str, came: object) -> bool:
    """`came`, checked to be true or false."""
    if not isinstance(came, bool):
        raise ArgumentError(f"{name} takes true or false, not {came!r}")
    return came


def _walk(root: type[Part]) -> Iterator[type[Part]]:
    for child in root.__subclasses__():
        yield child
        if not child.name:  # below a final class are those that it refused
            yield from _walk(child)


@cache
def _parameters(member: type[Part]) -> tuple[inspect.Parameter, ...]:
    if member.__init__ is nn.Module.__init__ or "__init__" not in _own_names(member):
        return ()
    named = list(inspect.signature(member.__init__).parameters.values())[1:]
    return tuple(p for p in named if p.kind is not inspect.Parameter.VAR_KEYWORD)


def _own_names(member: type[Part]) -> set[str]:
    names: set[str] = set()
    for base in member.__mro__:
        if base is Part:
            break
        names |= set(base.__dict__)
    return names


def _construct(member: type[Part], form: Form) -> Part:
    make: Callable[..., Part] = member
    try:
        inspect.signature(make).bind(*form.positional, **dict(form.keyword))
    except TypeError as error:
        takes = ", ".join(_takes(p) for p in _parameters(member)) or "no arguments"
        raise ArgumentError(f"{form} does not fit: {error}; {form.name} takes {takes}") from None
    return make(*form.positional, **dict(form.keyword))


def _takes(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        return parameter.name
    return f"{parameter.name}={write_value(parameter.default)}"


def _differs(value: Value, parameter: inspect.Parameter) -> bool:
    return write_value(value) != write_value(parameter.default)


def _canonical_value(value: Any) -> Value:
    if isinstance(value, Part):
        inner = value.form
        return inner if inner.positional or inner.keyword else inner.name
    return int(value) if isinstance(value, float) and value.is_integer() else value
